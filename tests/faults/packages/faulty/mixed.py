"""Tasks of all kinds. Beside the trace of its start each leaves two lines with the time: it has begun, it has ended."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from limetask import Application, task

from .tasks import begin, end, write_line

_LIMIT_SECONDS = float(os.environ.get("FAULTY_LIMIT_SECONDS", "10"))  # test_time_limits.py sets it
_GENEROUS_SECONDS = 300.0


@task
def early(app: Application, trace: str, number: int, seconds: float) -> int:
    """Take some time."""
    with _told(trace, number):
        time.sleep(seconds)
    return number


@task(acks_late=True)
def late(app: Application, trace: str, number: int, seconds: float) -> int:
    """The same with late ack."""
    with _told(trace, number):
        time.sleep(seconds)
    return number


@task
async def early_async(app: Application, trace: str, number: int, seconds: float) -> int:
    """The same as a coroutine."""
    with _told(trace, number):
        await asyncio.sleep(seconds)
    return number


@task(acks_late=True)
async def late_async(app: Application, trace: str, number: int, seconds: float) -> int:
    """The same as a coroutine, with late ack."""
    with _told(trace, number):
        await asyncio.sleep(seconds)
    return number


@task(time_limit=_GENEROUS_SECONDS)
def early_within_limit(app: Application, trace: str, number: int, seconds: float) -> int:
    """Take some time, with a limit that is never reached."""
    with _told(trace, number):
        time.sleep(seconds)
    return number


@task(acks_late=True, time_limit=_GENEROUS_SECONDS)
def late_within_limit(app: Application, trace: str, number: int, seconds: float) -> int:
    """The same with late ack."""
    with _told(trace, number):
        time.sleep(seconds)
    return number


@task
def early_forking(app: Application, trace: str, number: int, seconds: float) -> int:
    """Leave the time to a forked process, and wait for it."""
    with _told(trace, number):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(seconds,))
        child.start()
        child.join()
    return number


@task(time_limit=_LIMIT_SECONDS)
def early_limited(app: Application, trace: str, number: int, release: str) -> int:
    """Run until the file `release` exists, within a limit."""
    with _told(trace, number):
        _wait_for(release)
    return number


@task(acks_late=True, time_limit=_LIMIT_SECONDS)
def late_limited(app: Application, trace: str, number: int, release: str) -> int:
    """The same with late ack."""
    with _told(trace, number):
        _wait_for(release)
    return number


@task(time_limit=_LIMIT_SECONDS)
async def early_limited_async(app: Application, trace: str, number: int, release: str) -> int:
    """The same as a coroutine."""
    with _told(trace, number):
        while not Path(release).exists():  # noqa: ASYNC240 - it takes no time
            await asyncio.sleep(0.01)
    return number


def _wait_for(release: str) -> None:
    while not Path(release).exists():
        time.sleep(0.01)


@contextmanager
def _told(trace: str, number: int) -> Iterator[None]:
    begin(trace, number)
    write_line(f"{trace}.times", f"{number} began {time.time()}")
    yield
    write_line(f"{trace}.times", f"{number} ended {time.time()}")
    end(trace, number)
