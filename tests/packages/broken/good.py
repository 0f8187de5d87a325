"""Declares a task."""

from limetask import Application, task


@task
def fine(app: Application) -> None:
    """It must not be taken, since its neighbour cannot be imported."""
