"""Tasks with limits."""

from __future__ import annotations

import asyncio
import ctypes
import time
from pathlib import Path

from limetask import Application, SoftTimeLimitExceeded, task


@task(soft_time_limit=0.5)
def spin(app: Application, seconds: float) -> None:
    """Run Python code for long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.01)


@task(soft_time_limit=0.5)
async def nap_softly(app: Application, seconds: float) -> None:
    """Wait for long."""
    await asyncio.sleep(seconds)


@task(soft_time_limit=0.5)
def tidy_up_in_time(app: Application) -> str:
    """Use the soft limit to end in good order."""
    try:
        while True:
            time.sleep(0.01)
    except SoftTimeLimitExceeded:
        return "tidied up"


@task(time_limit=1)
def sleep(app: Application, path: str, seconds: float) -> None:
    """Leave a trace, and do not end in time."""
    with Path(path).open("a") as traces:
        traces.write("run\n")
    time.sleep(seconds)


@task(time_limit=1, acks_late=True)
def sleep_late(app: Application, path: str, seconds: float) -> None:
    """The same with late ack."""
    with Path(path).open("a") as traces:
        traces.write("run\n")
    time.sleep(seconds)


@task
def take_memory(app: Application, mebibytes: int) -> int:
    """Take that much memory for a moment."""
    return len(b"x" * (mebibytes * 1024 * 1024))


@task(time_limit=1)
def hold_up(app: Application, seconds: int) -> None:
    """Call a C function that keeps Python's global lock, so that nothing else in the process goes on."""
    ctypes.PyDLL(None).sleep(seconds)
