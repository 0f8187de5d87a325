"""The signals that stop a worker. The supervisor alone decides what they mean.

They may reach every process of the worker at once: Ctrl-C does, and so does systemd. If each stopped by itself, the
recorder would be gone before the last tasks have ended. And what a body starts must not inherit any of this: a signal
that its programs ignore, or its forked processes answer in our name.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

_ours: dict[int, Any] = {}

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
HARMLESS = (signal.SIGUSR1, signal.SIGUSR2)
"""Would end a process that does not catch them, and mean nothing to a worker."""

_CAUGHT = (*STOPPING, *HARMLESS)


def catch(actions: Mapping[int, Callable[[], None]]) -> None:
    """Have the running loop call these instead of ending the process; what `nohup` and the like ignore stays ignored.

    Not by ignoring a signal: that would outlive exec, in all programs that this process starts.
    """
    loop = asyncio.get_running_loop()
    for number, action in actions.items():
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, action)
    _note_handlers(actions)


def do_nothing() -> None:
    """Do nothing, for what is caught so that it ends no process."""


def go_on() -> None:
    """Take these signals, also those that were held back, and do nothing: the loop that caught them is closed."""
    for number in _CAUGHT:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _do_nothing)
    _note_handlers(_CAUGHT)
    let_through()


def _do_nothing(number: int, frame: object) -> None:
    pass


def _note_handlers(numbers: Iterable[int]) -> None:
    _ours.update({number: signal.getsignal(number) for number in numbers})


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Hold signals back from a process that is started here until it calls `let_through`: it cannot catch them yet."""
    before = hold_back()
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def hold_back() -> set[int]:
    """Let signals wait from now on, and return those that had to wait before."""
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, _CAUGHT))


def let_through() -> None:
    """Take the signals that were held back while this process was started."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _CAUGHT)


def restore_in_forks() -> None:
    """Have processes that are forked from this one be stopped by signals, as if nobody had caught them here.

    Call it once. Signals that come while a process is being forked wait until it can be stopped by them.
    """
    forking = threading.local()

    def before() -> None:
        forking.blocked = hold_back()

    def afterwards() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, forking.blocked)

    def in_child() -> None:
        if _ours:  # else it is a fork of a fork
            _restore(_ours)
            _ours.clear()
        afterwards()

    os.register_at_fork(before=before, after_in_parent=afterwards, after_in_child=in_child)


def _restore(handlers: Mapping[int, Any]) -> None:
    signal.set_wakeup_fd(-1)  # it is the parent's: a signal here would be one to the parent
    for number, handler in handlers.items():
        if handler is not signal.SIG_IGN and signal.getsignal(number) is handler:
            is_ctrl_c = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if is_ctrl_c else signal.SIG_DFL)
