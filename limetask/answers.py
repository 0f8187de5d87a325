"""How one thread waits for another's answer, also while signal handlers and greenlets do the same."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Answer(Generic[T]):
    """What one thread waits for and another gives.

    To give it takes no lock that a waiting thread may hold: a signal handler can wait for one answer while the code
    that it has interrupted waits for another. The lock inside is the one of `threading` at the time, so under gevent
    only the greenlet waits.
    """

    def __init__(self) -> None:
        self._missing = threading.Lock()
        self._missing.acquire()
        self._given: list[T] = []

    def give(self, value: T) -> None:
        """Give the answer; only the first one counts."""
        self._given.append(value)
        try:
            self._missing.release()
        except RuntimeError:  # it has been given before
            return

    def wait(self, timeout: float) -> bool:
        """Return True once it is given, or False after `timeout` seconds."""
        if not self._missing.acquire(timeout=max(0.0, min(timeout, threading.TIMEOUT_MAX))):
            return False
        self._missing.release()
        return True

    @property
    def value(self) -> T:
        """The answer, once it is given."""
        return self._given[0]
