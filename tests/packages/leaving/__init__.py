"""Code that ends its process, or its process's streams, as no task should."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from limetask import Application, task

if Path(os.environ.get("LEAVING_AT_IMPORT", "/nowhere")).exists():
    os._exit(0)

_CLOSING: dict[str, Callable[[], None]] = {
    "sys.stdout": lambda: sys.stdout.close(),
    "sys.stderr": lambda: sys.stderr.close(),
    "sys.stdin": lambda: sys.stdin.close(),
    "1": lambda: os.close(1),
    "0": lambda: os.close(0),
}


@task
def leave(app: Application) -> None:
    """End the process as if all were well."""
    os._exit(0)


@task
def become_another_program(app: Application) -> None:
    """Replace the program of the worker process."""
    os.execvp("sleep", ["sleep", "300"])


@task
def close(app: Application, what: str) -> None:
    """Close a standard stream, or its descriptor."""
    _CLOSING[what]()


@task
def ping(app: Application) -> int:
    """Say that this process is there."""
    return os.getpid()
