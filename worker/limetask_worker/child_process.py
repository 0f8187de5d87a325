"""A process of the worker as its parent sees it: started, waited for, killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

from limetask.forks import keep_from_forks
from limetask_worker import signals
from limetask_worker.control import Control
from limetask_worker.process import CUT_OFF

STOPPED_TOO_SOON = "the worker stopped before the task had ended"

LAST_WORDS_SECONDS = 1.0
"""What a process has sent before its end is here already, so this is time to read it. Nobody waits for the end of the
line: something that the process has started may hold the other end open."""

_LOOK_EVERY_SECONDS = 0.1


def _current_folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109
    except FileNotFoundError:  # it has been removed
        return None


STARTED_IN = _current_folder()
"""The folder in which this process was started; a deploy may remove it, and a body may go elsewhere."""


class ChildProcess:
    """A process that was started here. All but `wait` may be called when it has ended, too."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._ended: asyncio.Task[int] | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    async def wait(self) -> int:
        """Return the exit code, negative for a signal, once the process has ended; as often as it is asked for."""
        if self._ended is None:
            self._ended = asyncio.get_running_loop().create_task(self._wait())
        return await asyncio.shield(self._ended)

    def kill(self) -> None:
        self._process.kill()

    async def _wait(self) -> int:
        with contextlib.suppress(OSError):  # no descriptor is free, say: then it is looked at again and again
            await self._hear_of_end()
        while (exit_code := self._process.poll()) is None:
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
        return exit_code

    async def _hear_of_end(self) -> None:
        if not hasattr(os, "pidfd_open"):
            return
        descriptor = os.pidfd_open(self._process.pid)
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)


async def start_process(module: str, shared: Sequence[int] = ()) -> tuple[ChildProcess, Control]:
    """Start a Python process that runs `module`, and return it with our end of the control line to it.

    It gets the file descriptors `shared` too, and finds their numbers in its arguments. The signals that stop a worker
    are held back from it until it is ready for them. Raises OSError if no process can be started now.
    """
    ours, theirs = socket.socketpair()
    with theirs, contextlib.ExitStack() as if_it_fails:
        if_it_fails.callback(ours.close)
        keep_from_forks(ours)
        descriptors = [theirs.fileno(), *shared]
        with signals.held_back():
            process = subprocess.Popen(  # noqa: ASYNC220 - it takes as long as asyncio's own, which calls it as well
                [sys.executable, "-m", module, *map(str, descriptors)],
                pass_fds=descriptors,
                env=_child_environment(STARTED_IN),
            )
        if_it_fails.callback(process.wait)
        if_it_fails.callback(process.kill)
        control = await Control.open(ours)
        if_it_fails.pop_all()
    return ChildProcess(process), control


def _child_environment(folder: str | None) -> dict[str, str]:
    # As `python -m` would: users' packages are found in the folder where the worker is started.
    paths = [path for path in (folder, os.environ.get("PYTHONPATH")) if path]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def reason_of_death(exit_code: int, *, memory_was_short: bool = False) -> str:
    """Return what an exit code, negative for a signal, says of a worker process, for whoever reads a task's error.

    `memory_was_short` is whether the kernel has just killed a process for lack of memory.
    """
    if exit_code < 0:
        is_out_of_memory = memory_was_short and exit_code == -signal.SIGKILL
        probably = (
            ", probably out of memory, for which the kernel has just killed a process" if is_out_of_memory else ""
        )
        return f"the worker process was killed by {_signal_name(-exit_code)} (signal {-exit_code}){probably}"
    if exit_code == CUT_OFF:
        return STOPPED_TOO_SOON
    return f"the worker process ended with exit code {exit_code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return "a signal without a name"
