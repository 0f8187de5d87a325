"""limetask's own event loop in a thread of its own, and calls into it from all other threads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from selectors import BaseSelector
from typing import Any, Generic, TypeVar

from limetask import clock
from limetask.answers import Answer
from limetask.errors import UnusableHereError
from limetask.threads import (
    check_usable,
    no_threads_left,
    note_own_thread,
    start_thread,
    starting_own_thread,
    unpatched,
)

T = TypeVar("T")

_STOP_SECONDS = 5.0


class LoopThread:
    """A loop that runs until it is stopped. All methods are for other threads."""

    def __init__(self) -> None:
        """Start it; raises UnusableHereError if Python starts no threads any more, or if this is what it calls."""
        check_usable()
        with starting_own_thread():  # asyncio logs that it makes a loop
            self._loop = _Loop(unpatched("selectors", "DefaultSelector")())
        self._ended: Answer[None] = Answer()
        try:
            start_thread(self._run, "limetask")
        except RuntimeError as exc:
            self._loop.close()
            raise no_threads_left() from exc

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Have the loop call this. Raises UnusableHereError if it has been stopped."""
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError as exc:
            raise UnusableHereError("limetask's connections were closed while this call used them") from exc

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Call[T]:
        """Run a coroutine in the loop, and return what waits for it."""
        call = Call(self, coroutine)
        try:
            self.call_soon(call.begin)
        except UnusableHereError:
            coroutine.close()
            raise
        return call

    def stop(self) -> None:
        """End the loop and its thread. Calls that still wait get UnusableHereError. May be called twice."""
        try:
            self._loop.call_soon_threadsafe(self._loop.stop)
        except RuntimeError:
            return
        self._ended.wait(_STOP_SECONDS)

    def _run(self) -> None:
        note_own_thread()
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(_cancel_all())
        finally:
            self._loop.close()
            self._ended.give(None)


class Call(Generic[T]):
    """A coroutine in the loop's thread, for which another thread waits."""

    def __init__(self, thread: LoopThread, coroutine: Coroutine[Any, Any, T]) -> None:
        self._thread = thread
        self._coroutine = coroutine
        self._task: asyncio.Task[T]
        self._answer: Answer[asyncio.Task[T]] = Answer()

    def begin(self) -> None:
        """Start the coroutine; for the loop."""
        self._task = asyncio.get_running_loop().create_task(self._coroutine)
        self._task.add_done_callback(self._answer.give)

    def wait(self, timeout: float) -> bool:
        """Return True once it has ended, or False after `timeout` seconds."""
        return self._answer.wait(timeout)

    def cancel(self) -> None:
        """Have it cancelled; it may end a little later, or have ended."""
        self._thread.call_soon(lambda: self._task.cancel())

    def result(self) -> T:
        """Return what the coroutine has returned, or raise what it has raised."""
        task = self._answer.value
        if task.cancelled():
            raise UnusableHereError("limetask's connections were closed while this call used them")
        return task.result()


class _Loop(asyncio.SelectorEventLoop):
    """asyncio's own loop, whatever the program's policy makes, by a clock that no test freezes."""

    _is_made = False

    def __init__(self, selector: BaseSelector) -> None:
        with contextlib.ExitStack() as if_it_fails:
            if_it_fails.callback(selector.close)
            super().__init__(selector)
            if_it_fails.pop_all()
        self._is_made = True

    def __del__(self) -> None:
        if self._is_made:  # else asyncio finds nothing to close, and says so with a traceback
            super().__del__()

    def time(self) -> float:
        return clock.now()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
