"""The threads in which plain functions run, and their way back to the loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue

from limetask_worker.work import Outcome, Work

_Job = tuple[Work, asyncio.Future[Outcome]]


class BodyThreads:
    """Runs up to `count` bodies at a time, with `run`, which must not raise. Belongs to the loop of the first one.

    It does less for each body than a ThreadPoolExecutor: bodies that end while the loop is busy wake it once.
    """

    def __init__(self, count: int, run: Callable[[Work], Outcome]) -> None:
        self._count = count
        self._run = run
        self._loop: asyncio.AbstractEventLoop
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._ended: deque[tuple[asyncio.Future[Outcome], Outcome]] = deque()
        self._is_woken = False
        self._threads: list[threading.Thread] = []

    def run(self, work: Work) -> asyncio.Future[Outcome]:
        """Have a body run as soon as a thread is free; the future ends with its outcome."""
        if not self._threads:
            self._loop = asyncio.get_running_loop()
            self._start()
        ended: asyncio.Future[Outcome] = self._loop.create_future()
        self._jobs.put((work, ended))
        return ended

    def close(self) -> None:
        """Begin no more bodies, and let the threads end when theirs do."""
        with contextlib.suppress(Empty):
            while (job := self._jobs.get_nowait()) is not None:
                job[1].cancel()
        for _ in self._threads:
            self._jobs.put(None)

    def _start(self) -> None:
        # Daemons: the process ends when it has to, whatever a body does.
        self._threads = [
            threading.Thread(target=self._work, name=f"task_{number}", daemon=True) for number in range(self._count)
        ]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, ended = job
            self._ended.append((ended, self._run(work)))
            del work, ended, job  # an idle thread keeps nothing alive
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
