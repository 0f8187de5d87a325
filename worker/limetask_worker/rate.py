"""How fast something comes, lately."""

from __future__ import annotations

import time
from collections.abc import Callable


class Rate:
    """Counts, and tells how many a second there were in the last tenth of a second or more. For one thread."""

    _SECONDS = 0.1

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` tells seconds, from any moment on."""
        self._clock = clock
        self._since = clock()
        self._count = 0
        self._per_second = 0.0

    @property
    def per_second(self) -> float:
        """As it was when something was noted last."""
        return self._per_second

    def note(self, count: int) -> None:
        """Note that so many have come."""
        self._count += count
        seconds = self._clock() - self._since
        if seconds >= self._SECONDS:
            self._per_second = self._count / seconds
            self._since += seconds
            self._count = 0
