"""The ways to start a process, each beginning one that leaves its id in a file and lives until it is killed."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

_LIVES_SECONDS = 300
# What is started lives on when this function has returned, so what Python would end it with is kept.
_kept: list[Any] = []


def live(path: str) -> None:
    """Leave a trace, and live."""
    with Path(path).open("a") as traces:
        traces.write(f"{os.getpid()}\n")
    time.sleep(_LIVES_SECONDS)


def fork(path: str) -> None:
    """Call os.fork."""
    if os.fork() == 0:
        try:
            live(path)
        finally:
            os._exit(0)


def fork_twice(path: str) -> None:
    """Fork a process that forks another one, and ends."""
    pid = os.fork()
    if pid == 0:
        try:
            fork(path)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def process(path: str, method: str) -> None:
    """Start a multiprocessing.Process."""
    started: Any = multiprocessing.get_context(method).Process(target=live, args=(path,))  # type: ignore[attr-defined]
    started.start()
    _kept.append(started)


def pool(path: str) -> None:
    """Use a multiprocessing.Pool."""
    workers = multiprocessing.get_context("fork").Pool(2)
    workers.apply_async(live, (path,))
    _kept.append(workers)


def pool_executor(path: str) -> None:
    """Use a concurrent.futures.ProcessPoolExecutor."""
    executor = ProcessPoolExecutor(2, multiprocessing.get_context("fork"))
    _kept.append((executor, executor.submit(live, path)))


def popen(path: str, **options: Any) -> None:
    """Start a program by way of subprocess."""
    _kept.append(subprocess.Popen(_program(path), **options))


def spawn(path: str) -> None:
    """Start a program by way of os.posix_spawn."""
    program = _program(path)
    os.posix_spawn(program[0], program, os.environ)


def _program(path: str) -> list[str]:
    return [sys.executable, "-c", f"from forking.ways import live; live({path!r})"]


WAYS: dict[str, Callable[[str], None]] = {
    "fork": fork,
    "fork_twice": fork_twice,
    "process_fork": partial(process, method="fork"),
    "process_forkserver": partial(process, method="forkserver"),
    "process_spawn": partial(process, method="spawn"),
    "pool": pool,
    "pool_executor": pool_executor,
    "popen": popen,
    "popen_preexec": partial(popen, preexec_fn=lambda: None),
    "popen_all_descriptors": partial(popen, close_fds=False),
    "posix_spawn": spawn,
}
