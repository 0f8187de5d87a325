"""Raises SoftTimeLimitExceeded in a body that runs for too long, in a thread or in a coroutine."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import threading
import types
from collections.abc import Awaitable, Coroutine, Generator, Iterator
from typing import Any

from limetask.errors import SoftTimeLimitExceeded
from limetask_worker.deadlines import deadlines

_NO_LIMIT = contextlib.nullcontext()


def soft_limit_in_thread(seconds: float | None) -> contextlib.AbstractContextManager[None]:
    """Have the exception raised in this thread if the block takes longer; it interrupts Python code, not a C call."""
    return _NO_LIMIT if seconds is None else _limited(seconds)


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    thread = threading.get_ident()
    lock = threading.Lock()
    is_over = False

    def interrupt() -> None:
        with lock:
            if not is_over:
                _raise_in(thread, SoftTimeLimitExceeded)

    deadlines.start()
    deadline = deadlines.add(seconds, interrupt)
    try:
        yield
    finally:
        with lock:
            is_over = True
            _raise_in(thread, None)  # should it be on its way already
        deadlines.cancel(deadline)


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), None if error is None else ctypes.py_object(error)
    )


async def with_soft_limit(seconds: float | None, body: Coroutine[Any, Any, Any]) -> Any:
    """Await a coroutine, and have the exception raised where it waits if that takes longer."""
    if seconds is None:
        return await body
    task = asyncio.current_task()
    assert task is not None
    timer = _CoroutineTimer(task)
    handle = asyncio.get_running_loop().call_later(seconds, timer.expire)
    try:
        return await _drive(body, timer)
    finally:
        handle.cancel()


class _CoroutineTimer:
    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self._is_expired = False

    def expire(self) -> None:
        self._is_expired = True
        self._task.cancel()

    def replaced(self, error: BaseException) -> BaseException:
        """Return what the body is to see instead of the cancellation with which it was woken."""
        if not self._is_expired or not isinstance(error, asyncio.CancelledError):
            return error
        self._is_expired = False
        self._task.uncancel()
        return SoftTimeLimitExceeded("the soft time limit is over")


@types.coroutine
def _drive(body: Coroutine[Any, Any, Any], timer: _CoroutineTimer) -> Generator[Any, Any, Any]:
    """Do what `await body` does, with the exceptions that wake it replaced."""
    error: BaseException | None = None
    while True:
        try:
            awaited: Awaitable[Any] = body.send(None) if error is None else body.throw(error)
        except StopIteration as end:
            return end.value
        error = None
        try:
            yield awaited
        except BaseException as exc:  # noqa: BLE001 - it is handed on to the body
            error = timer.replaced(exc)
