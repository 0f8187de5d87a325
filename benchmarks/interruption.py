"""Ctrl-C at any moment, and no process is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_started: list[subprocess.Popen[str]] = []
_is_held_back = False
_has_come = False


@contextmanager
def interruptible() -> Iterator[None]:
    """Have the first signal raise KeyboardInterrupt, and no second one disturb the clean-up.

    What `start_process` has started does not outlive the context.
    """
    for number in _SIGNALS:
        signal.signal(number, _on_signal)
    try:
        yield
    finally:
        for process in _running():
            _kill(process)


def start_process(command: Sequence[str | Path], **options: Any) -> subprocess.Popen[str]:
    """Start a process in a session of its own, which no Ctrl-C of our terminal reaches."""
    global _is_held_back
    # An interrupted start would leave a process that nobody knows.
    _is_held_back = True
    try:
        process = subprocess.Popen(command, text=True, start_new_session=True, **options)
        _started[:] = [*_running(), process]
    finally:
        _is_held_back = False
    if _has_come:
        raise KeyboardInterrupt
    return process


def _on_signal(_number: int, _frame: object) -> None:
    global _has_come
    _has_come = True
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if not _is_held_back:
        raise KeyboardInterrupt


def _running() -> list[subprocess.Popen[str]]:
    return [process for process in _started if process.poll() is None]


def _kill(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
