"""Tasks that start processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import limetask
from limetask import Application, task

from .ways import WAYS

# What a forked process does where the body goes on.
_ENDS: dict[str, Callable[[], object]] = {
    "exits with 3": lambda: sys.exit(3),
    "exits with a text": lambda: sys.exit("said by the forked process"),
    "exits": lambda: sys.exit(),
    "raises": lambda: 1 // 0,
    "returns": lambda: None,
    "raises a task's failure": lambda: _fail(),
}


def _fail() -> None:
    raise limetask.TaskFailure("not the task's")


def _hold(path: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not Path(f"{path}.release").exists() and time.monotonic() < deadline:
        time.sleep(0.01)


@task
def start_and_hold(app: Application, way: str, path: str) -> int:
    """Start a process that lives on, and run until the file for the release exists."""
    WAYS[way](path)
    _hold(path)
    return os.getpid()


@task(acks_late=True)
def start_and_hold_late(app: Application, way: str, path: str) -> int:
    """The same with late ack."""
    WAYS[way](path)
    _hold(path)
    return os.getpid()


@task
async def start_and_hold_async(app: Application, way: str, path: str) -> int:
    """The same in a coroutine."""
    WAYS[way](path)
    await asyncio.to_thread(_hold, path)
    return os.getpid()


@task(time_limit=1)
def start_and_exceed(app: Application, way: str, path: str) -> None:
    """The same, for longer than it may."""
    WAYS[way](path)
    _hold(path)


@task
def start(app: Application, way: str, path: str) -> int:
    """Start a process that lives on, and end when it does."""
    WAYS[way](path)
    deadline = time.monotonic() + 20
    while not Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return os.getpid()


@task
def square(app: Application, numbers: list[int]) -> list[int]:
    """Compute in a pool, which is terminated after."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        squares: list[int] = pool.map(_square, numbers)
    return squares


@task
async def square_async(app: Application, numbers: list[int]) -> list[int]:
    """The same in a coroutine."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        squares: list[int] = pool.map(_square, numbers)
    return squares


def _square(number: int) -> int:
    return number * number


@task
def terminate(app: Application, seconds: float) -> list[int | None]:
    """Start processes, terminate them at once or soon, and return their exit codes."""
    started: list[Any] = [multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,)) for _ in range(8)]
    for one in started:
        one.start()
        time.sleep(seconds)
        one.terminate()
    for one in started:
        one.join(20)
    codes = [one.exitcode for one in started]
    for one in started:
        one.kill()
    return codes


@task
def fork_and_wait(app: Application, end: str) -> int:
    """Fork a process that goes on in the body, and return its exit code."""
    pid = os.fork()
    if pid == 0:
        _ENDS[end]()
        return -1
    return _exit_code_of(pid)


@task
async def fork_and_wait_async(app: Application, end: str) -> int:
    """The same in a coroutine."""
    pid = os.fork()
    if pid == 0:
        _ENDS[end]()
        return -1
    return await asyncio.to_thread(_exit_code_of, pid)


@task
async def fork_and_wait_in_thread(app: Application, end: str) -> int:
    """The same in a thread that the coroutine waits for."""
    return await asyncio.to_thread(fork_and_wait, app, end)


@task
async def fork_and_await(app: Application) -> int:
    """Fork a process that awaits on the loop that is its parent's."""
    other = asyncio.get_running_loop().create_future()
    pid = os.fork()
    if pid == 0:
        await other
        return -1
    return await asyncio.to_thread(_exit_code_of, pid)


@task(acks_late=True)
def fork_alone(app: Application, path: str, end: str) -> int:
    """Take the worker process down once; then, alone, fork a process that goes on in the body."""
    with Path(path).open("a") as traces:
        traces.write(f"{os.getpid()}\n")
    if len(Path(path).read_text().splitlines()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return fork_and_wait(app, end)


@task(acks_late=True)
def hold_alone(app: Application, path: str) -> int:
    """Take the worker process down once; then run alone until the file for the release exists."""
    with Path(path).open("a") as traces:
        traces.write(f"{os.getpid()}\n")
    if len(Path(path).read_text().splitlines()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    WAYS["fork"](f"{path}.forked")
    _hold(path)
    return os.getpid()


def _exit_code_of(pid: int) -> int:
    """Wait for a child process, and return its exit code; -1000 if it does not end."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -1000


@task
def signals_of_a_program(app: Application) -> dict[str, Any]:
    """Return what a program that a task starts does on signals, and which are blocked."""
    code = """
import json, signal
numbers = {name: getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP")}
told = {name: str(signal.getsignal(number)) for name, number in numbers.items()}
print(json.dumps(told | {"blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))}))
"""
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    told: dict[str, Any] = json.loads(answer.stdout)
    return told


@task
def signals_of_a_fork(app: Application) -> dict[str, Any]:
    """Return the same of a forked process."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        numbers = {name: getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP")}
        told: dict[str, Any] = {name: _name_of(signal.getsignal(number)) for name, number in numbers.items()}
        told["blocked"] = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        told["wakeup"] = signal.set_wakeup_fd(-1)
        os.write(writing, json.dumps(told).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        told = json.loads(answer.read())
    os.waitpid(pid, 0)
    return told


def _name_of(handler: Any) -> str:
    return "default" if handler in (signal.SIG_DFL, signal.default_int_handler) else str(handler)


@task
def send_from_a_fork(app: Application, path: str) -> None:
    """Send a task in a forked process, which leaves its id in a file."""
    limetask.send_task("forking.tasks.ping", app)  # this process has a client already
    pid = os.fork()
    if pid == 0:
        with _never_back():
            Path(path).write_text(limetask.send_task("forking.tasks.ping", app).id)
    os.waitpid(pid, 0)


@contextlib.contextmanager
def _never_back() -> Iterator[None]:
    try:
        yield
    finally:
        os._exit(0)


@task
def ping(app: Application) -> int:
    """Say that this process is there."""
    return os.getpid()


@task
def count_run(app: Application, path: str, identity: int) -> int:
    """Leave a trace of each run: one line, appended in one write."""
    with Path(path).open("a") as traces:
        traces.write(f"{identity}\n")
    return identity
