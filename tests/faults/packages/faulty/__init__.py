"""The tasks of the fault tests."""
