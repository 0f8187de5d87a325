"""A web application that sends tasks, tells their statuses, and streams how they end."""
