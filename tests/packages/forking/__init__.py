"""Tasks and an event handler that start processes of their own, in every way that Python has."""
