"""A package with tasks, as the workers of the tests run it."""
