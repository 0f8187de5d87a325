"""The threads in which plain functions run, and their way back to the loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

from limetask_worker.work import Outcome, Work

_Job = tuple[Work, asyncio.Future[Outcome]]


class BodyThreads:
    """Runs up to `count` bodies at a time, with `run`, which must not raise. Belongs to the loop of the first one.

    Each runs in a fresh context: what one sets in context variables, the next one in its thread must not see.
    A body that must wait begins as soon as a thread is free, whatever the loop is doing then. Bodies that end while the
    loop is busy wake it once.
    """

    def __init__(self, count: int, run: Callable[[Work], Outcome]) -> None:
        self._count = count
        self._run = run
        self._loop: asyncio.AbstractEventLoop
        self._waiting: deque[_Job] = deque()
        # For each job, in turn: True is "look for one", False is "end".
        self._calls: SimpleQueue[bool] = SimpleQueue()
        self._ended: deque[tuple[asyncio.Future[Outcome], Outcome]] = deque()
        self._is_woken = False
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start all threads, which the first body does otherwise. Raises RuntimeError if that cannot be done now.

        Call it before a task is taken: one whose start is recorded must find a thread.
        """
        self._loop = asyncio.get_running_loop()
        # Daemons: the process ends when it has to, whatever a body does.
        threads = [
            threading.Thread(target=self._work, name=f"task_{number}", daemon=True) for number in range(self._count)
        ]
        for thread in threads:
            thread.start()
        self._threads = threads

    def run(self, work: Work) -> asyncio.Future[Outcome]:
        """Have a body run as soon as a thread is free; the future ends with its outcome."""
        if not self._threads:
            self.start()
        ended: asyncio.Future[Outcome] = self._loop.create_future()
        self._waiting.append((work, ended))
        self._calls.put(True)
        return ended

    @property
    def longest_waiting(self) -> Work | None:
        """The task whose body has waited for a thread for longest, None if none waits."""
        with contextlib.suppress(IndexError):  # a thread has just taken it
            return self._waiting[0][0]
        return None

    def take_back(self) -> list[Work]:
        """Return the tasks whose bodies have not begun; they will not, and their futures are cancelled."""
        taken: list[Work] = []
        with contextlib.suppress(IndexError):
            while True:
                work, ended = self._waiting.popleft()
                ended.cancel()
                taken.append(work)
        return taken

    def close(self) -> None:
        """Begin no more bodies, and let the threads end when theirs do."""
        self.take_back()
        for _ in self._threads:
            self._calls.put(False)

    def _work(self) -> None:
        while self._calls.get():
            try:
                work, ended = self._waiting.popleft()
            except IndexError:
                continue  # it was taken back
            self._ended.append((ended, contextvars.Context().run(self._run, work)))
            del work, ended  # an idle thread keeps nothing alive
            if not self._is_woken:
                self._is_woken = True
                with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits for this body
                    self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._is_woken = False  # before the look: what is appended after it wakes the loop again
        while self._ended:
            ended, outcome = self._ended.popleft()
            if not ended.done():
                ended.set_result(outcome)
