"""A package without tasks."""
