"""Replaces Python's threads."""

from __future__ import annotations

from gevent import monkey

from limetask import Application, task

monkey.patch_all()


@task
def add(app: Application, first: int, second: int) -> int:
    """Return the sum."""
    return first + second


def make_application(identifier: str) -> Application:
    """Return what tasks get."""
    return Application(identifier)
