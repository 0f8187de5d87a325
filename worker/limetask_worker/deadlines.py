"""Calls what is due, from one thread for all bodies: to start a thread for each might fail when it is needed."""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable

# So many that were cancelled are kept, unless they are fewer than those that are not.
_MOST_CANCELLED = 1000


class Deadline:
    """Something that is called at a moment, by time.monotonic, unless it is cancelled before."""

    __slots__ = ("_number", "at", "call")

    def __init__(self, at: float, number: int, call: Callable[[], None]) -> None:
        self.at = at
        self._number = number
        self.call: Callable[[], None] | None = call

    def __lt__(self, other: Deadline) -> bool:
        return (self.at, self._number) < (other.at, other._number)


class Deadlines:
    """Deadlines of one process, for any of its threads. In a process that was forked from it nothing is called."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[Deadline] = []
        self._cancelled = 0
        self._numbers = itertools.count()
        self._process = 0

    def start(self) -> None:
        """Start the thread, unless it runs. Raises RuntimeError if that cannot be done now."""
        with self._changed:
            if self._process != os.getpid():
                threading.Thread(target=self._run, name="deadlines", daemon=True).start()
                self._process = os.getpid()

    def add(self, seconds: float, call: Callable[[], None]) -> Deadline:
        """Have `call` called in so many seconds, in the thread; it must be quick."""
        deadline = Deadline(time.monotonic() + seconds, next(self._numbers), call)
        with self._changed:
            heapq.heappush(self._waiting, deadline)
            if self._waiting[0] is deadline:
                self._changed.notify()
        return deadline

    def cancel(self, deadline: Deadline) -> None:
        """Do not call it any more, unless it is being called now."""
        deadline.call = None
        if self._process != os.getpid():
            return  # forked, perhaps while another thread had the lock
        with self._changed:
            self._cancelled += 1
            if self._cancelled > max(_MOST_CANCELLED, len(self._waiting) / 2):
                self._waiting = [one for one in self._waiting if one.call is not None]
                heapq.heapify(self._waiting)
                self._cancelled = 0

    def _run(self) -> None:
        while True:
            call = self._next().call
            if call is not None:
                call()

    def _next(self) -> Deadline:
        """Return the first one, at its moment."""
        with self._changed:
            while not self._waiting or self._waiting[0].at > time.monotonic():
                self._changed.wait(self._waiting[0].at - time.monotonic() if self._waiting else None)
            return heapq.heappop(self._waiting)


deadlines = Deadlines()
