"""Tasks whose every start leaves a trace that survives whatever happens to the process."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from functools import cache
from pathlib import Path

from limetask import Application, task


@task
def early(app: Application, trace: str, number: int, seconds: float) -> int:
    """Leave a trace, then take some time."""
    _begin(trace, number)
    time.sleep(seconds)
    return number


@task(acks_late=True)
def late(app: Application, trace: str, number: int, seconds: float) -> int:
    """The same with late ack."""
    _begin(trace, number)
    time.sleep(seconds)
    return number


@task
def held(app: Application, trace: str, number: int, release: str) -> int:
    """Leave a trace, then run until the file `release` exists."""
    return _hold(trace, number, release)


@task(acks_late=True)
def held_late(app: Application, trace: str, number: int, release: str) -> int:
    """The same with late ack."""
    return _hold(trace, number, release)


@task(acks_late=True)
def poison(app: Application, trace: str, number: int) -> None:
    """Kill the worker process, whenever it is run."""
    _begin(trace, number)
    os.kill(os.getpid(), signal.SIGKILL)


@task
def bulky(app: Application, trace: str, number: int, size: int) -> str:
    """Return a result of a given size."""
    _begin(trace, number)
    return "x" * size


def _hold(trace: str, number: int, release: str) -> int:
    _begin(trace, number)
    deadline = time.monotonic() + 60
    while not Path(release).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return number


# Calls that do not let another thread run meanwhile: it could kill the process, and the body that has begun would
# have left no trace.
_libc = ctypes.PyDLL(None)


def _begin(trace: str, number: int) -> None:
    """Append one line in one write, so that no two starts can mix and none is lost with the process."""
    line = f"{number} {os.getpid()}\n".encode()
    if _libc.write(_opened(trace), line, len(line)) != len(line):
        raise OSError(f"cannot write to {trace}")


@cache
def _opened(trace: str) -> int:
    descriptor: int = _libc.open(trace.encode(), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    if descriptor < 0:
        raise OSError(f"cannot open {trace}")
    return descriptor
