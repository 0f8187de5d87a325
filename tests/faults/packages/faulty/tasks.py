"""Tasks whose every start and end leaves a trace that survives whatever happens to the process."""

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
    return _take_time(trace, number, seconds)


@task(acks_late=True)
def late(app: Application, trace: str, number: int, seconds: float) -> int:
    """The same with late ack."""
    return _take_time(trace, number, seconds)


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
    begin(trace, number)
    os.kill(os.getpid(), signal.SIGKILL)


@task
def bulky(app: Application, trace: str, number: int, size: int) -> str:
    """Return a result of a given size."""
    begin(trace, number)
    return "x" * size


@task(acks_late=True)
def bulky_late(app: Application, trace: str, number: int, size: int) -> str:
    """The same with late ack."""
    begin(trace, number)
    return "x" * size


@task
def bulky_when_released(app: Application, trace: str, number: int, release: str, size: int) -> str:
    """Return a result of a given size once the file `release` exists."""
    begin(trace, number)
    _wait_for(release)
    return "x" * size


@task
def wordy(app: Application, trace: str, number: int, words: int) -> None:
    """Fail with a message of so many characters."""
    begin(trace, number)
    raise ValueError(("word " * words)[:words])


def _hold(trace: str, number: int, release: str) -> int:
    begin(trace, number)
    _wait_for(release)
    return end(trace, number)


def _wait_for(release: str) -> None:
    deadline = time.monotonic() + 60
    while not Path(release).exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def _take_time(trace: str, number: int, seconds: float) -> int:
    begin(trace, number)
    time.sleep(seconds)
    return end(trace, number)


# Calls that do not let another thread run meanwhile: it could kill the process, and the body that has begun would
# have left no trace.
_libc = ctypes.PyDLL(None)


def begin(trace: str, number: int) -> None:
    """Leave the trace of a start."""
    write_line(trace, f"{number} {os.getpid()}")


def end(trace: str, number: int) -> int:
    """Leave the trace of an end: what is told of it from now on must not be a failure."""
    write_line(f"{trace}.ends", f"{number} {os.getpid()}")
    return number


def write_line(path: str, text: str) -> None:
    """Append one line in one write, so that no two can mix and none is lost with the process."""
    line = f"{text}\n".encode()
    if _libc.write(_opened(path), line, len(line)) != len(line):
        raise OSError(f"cannot write to {path}")


@cache
def _opened(trace: str) -> int:
    descriptor: int = _libc.open(trace.encode(), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    if descriptor < 0:
        raise OSError(f"cannot open {trace}")
    return descriptor
