"""A package with a task in one module and a mistake in another."""
