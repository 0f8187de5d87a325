"""A thread with an asyncio loop of its own, for users' coroutines: one that blocks keeps no heartbeat waiting."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import threading
import weakref
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

from limetask_worker.forked import end_if_forked
from limetask_worker.fresh_contexts import FreshContextThreads

logger = logging.getLogger(__name__)

T = TypeVar("T")

_loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()


class _ThreadsThatThereAre(FreshContextThreads):
    """Has one thread from its start on. If no more can be started, as at the limit of processes, calls wait for it.

    Else each call that wants another thread, and be it to make an application, would fail a task that has not begun.
    """

    def __init__(self, thread_name_prefix: str) -> None:
        super().__init__(thread_name_prefix=thread_name_prefix)
        self.submit(lambda: None)

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()  # a submitted call is in the queue already
        except RuntimeError:
            if not self._threads:
                raise


class LoopThread:
    """Runs coroutines, each in a fresh context. `submit` and `stop` may be called in any thread."""

    def __init__(self, name: str) -> None:
        """Raises RuntimeError if its threads cannot be started now."""
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(_ThreadsThatThereAre(thread_name_prefix=name))
        self._stopping = False
        _loops.add(self._loop)
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        # The coroutine runs in a copy of the context in which it is handed to the loop: a copy of an empty one.
        return Context().run(asyncio.run_coroutine_threadsafe, coroutine, self._loop)

    def stop(self) -> None:
        """End the thread, whatever still runs in it."""
        if not self._stopping:
            self._stopping = True
            self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        while not self._stopping:
            try:
                self._loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as exc:  # of a callback, or of a task beside the body
                logger.warning("a coroutine tried to end the process (%s), which goes on", type(exc).__name__)
            _end_if_forked()
        self._loop.close()


def _end_if_forked() -> None:
    """End a forked process that has awaited something: the loop's other coroutines go on in the parent."""
    end_if_forked(RuntimeError("a process that a coroutine has forked cannot await on the loop of its parent"))


def _stop_loops() -> None:
    for loop in _loops:
        loop.stop()


os.register_at_fork(after_in_child=_stop_loops)
