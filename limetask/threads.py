"""Threads of our own, and where limetask cannot be used.

Python ends its default executors with the main thread, so nothing here needs them.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from limetask.errors import UnusableHereError

T = TypeVar("T")

_HAND_OVER = (
    "a logging handler or a `__del__` that sends must hand it to another thread, as logging.handlers.QueueHandler does"
)

_this_thread = threading.local()


def start_thread(target: Callable[[], object], name: str) -> None:
    """Run `target` in a daemon thread. Raises RuntimeError when Python starts no threads any more.

    If gevent has replaced `threading`, the thread is a real one all the same: an event loop in a greenlet would be the
    running loop of all other greenlets, too.
    """
    if _is_patched_by_gevent():
        unpatched("_thread", "start_new_thread")(target, ())
    else:
        threading.Thread(target=target, name=name, daemon=True).start()


def unpatched(module: str, name: str) -> Any:
    """Return what a module of Python has under a name, or had before gevent replaced it."""
    if _is_patched_by_gevent():
        return sys.modules["gevent.monkey"].get_original(module, name)
    return getattr(importlib.import_module(module), name)


async def in_thread(function: Callable[..., T], *args: Any) -> T:
    """Call a function that blocks, in a thread of its own; here, if Python starts no threads any more.

    That is so at the end of a program, when nobody else is kept waiting.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def call() -> None:
        result = error = None
        try:
            result = function(*args)
        except Exception as exc:  # noqa: BLE001 - it is raised where the caller waits
            error = exc
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, answer, result, error)

    try:
        start_thread(call, "limetask call")
    except RuntimeError:
        return function(*args)
    return await answer


async def look_up(host: str, port: int, *options: int) -> list[Any]:
    """Return a host's addresses, as `socket.getaddrinfo` does with these options."""
    found: list[Any] = await in_thread(unpatched("socket", "getaddrinfo"), host, port, *options)
    return found


def note_own_thread() -> None:
    """Note that the calling thread is one that limetask itself waits for."""
    _this_thread.is_own = True


def is_own_thread() -> bool:
    """Return True in a thread that limetask itself waits for."""
    return getattr(_this_thread, "is_own", False)


def check_usable() -> None:
    """Raise UnusableHereError where a call that waits for limetask's own thread could never return."""
    if is_own_thread():
        raise UnusableHereError(f"limetask cannot be used in its own thread, which would wait for itself: {_HAND_OVER}")
    if sys.is_finalizing():
        raise UnusableHereError(
            "limetask cannot be used while Python shuts down: send before the program ends, or in a function for "
            "`atexit`, and not in a `__del__`"
        )


@contextlib.contextmanager
def starting_own_thread() -> Iterator[None]:
    """Start limetask's thread in this block. Raises UnusableHereError if that is what has called limetask.

    As a logging handler does that sends whatever is logged there. A signal handler may come between once.
    """
    depth = getattr(_this_thread, "starting", 0)
    if depth > 1:
        raise UnusableHereError(f"limetask cannot be used by what is called while its thread starts: {_HAND_OVER}")
    _this_thread.starting = depth + 1
    try:
        yield
    finally:
        _this_thread.starting = depth


def no_threads_left() -> UnusableHereError:
    """Return the error for a Python that starts no threads any more."""
    return UnusableHereError(
        "limetask needs a thread, and Python starts none any more: the program is ending, or on Python 3.12 its main "
        "thread has ended. Send a first task before that, and limetask has its thread"
    )


def _is_patched_by_gevent() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def _settle(answer: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if answer.done():
        return  # its caller has gone
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(result)
