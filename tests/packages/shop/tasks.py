"""Tasks that do, on request, what tasks may do."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from limetask import Application, TaskFailure, task


@task
def add(app: Application, first: int, second: int) -> int:
    """Return the sum."""
    return first + second


@task
def echo(app: Application, *args: Any, **kwargs: Any) -> list[Any]:
    """Return the arguments."""
    return [app.identifier, list(args), kwargs]


@task
def count_run(app: Application, path: str, identity: int) -> int:
    """Leave a trace of each run: one line, appended in one write."""
    with Path(path).open("a") as traces:
        traces.write(f"{identity}\n")
    return identity


@task
def hold(app: Application, path: str, seconds: float = 60.0) -> int:
    """Leave a trace, then run until `path` + ".release" exists."""
    _trace_and_wait(path, seconds)
    return os.getpid()


@task(acks_late=True)
def hold_late(app: Application, path: str, seconds: float = 60.0) -> int:
    """The same with late ack."""
    _trace_and_wait(path, seconds)
    return os.getpid()


def _trace_and_wait(path: str, seconds: float) -> None:
    _trace(path)
    deadline = time.monotonic() + seconds
    while not Path(f"{path}.release").exists() and time.monotonic() < deadline:
        time.sleep(0.01)


@task
def fail(app: Application, message: str) -> None:
    """Fail on purpose."""
    raise TaskFailure(message)


@task
def crash(app: Application) -> float:
    """Fail by mistake."""
    return 1 / 0


@task
def give_up_the_process(app: Application) -> None:
    """Try to end the process in the way scripts do."""
    raise SystemExit(7)


@task
def not_json(app: Application) -> object:
    """Return what JSON cannot express."""
    return object()


@task
def large(app: Application, size: int) -> str:
    """Return a result of a given size."""
    return "x" * size


@task
def length(app: Application, text: str) -> int:
    """Say how long a text is: arguments of any size, with a small result."""
    return len(text)


@task(qos="asap")
async def nap(app: Application, seconds: float) -> str:
    """A coroutine."""
    await asyncio.sleep(seconds)
    return threading.current_thread().name


@task(qos="background")
def tidy(app: Application) -> str:
    """A task with a queue of its own."""
    return "tidy"


@task
def send_another(app: Application, first: int, second: int) -> str:
    """A task that sends a task."""
    return add.send(app, first, second).id


@task(acks_late=True)
def kill_the_process(app: Application, path: str) -> None:
    """Leave a trace, and take the worker process down."""
    _trace(path)
    os.kill(os.getpid(), signal.SIGKILL)


def _trace(path: str) -> None:
    with Path(path).open("a") as traces:
        traces.write(f"{os.getpid()}\n")


@task
def sleep(app: Application, seconds: float) -> None:
    """Take some time."""
    time.sleep(seconds)
