"""How quick the tasks are that run here: how many may be started ahead of a free slot."""

from __future__ import annotations

# A task that is started ahead waits for this long for its slot, as far as its predecessors tell.
_AHEAD_SECONDS = 0.05
_MOST_AHEAD = 120
_QUICK_SECONDS = 0.05
# The share of the newest in the average of all.
_WEIGHT = 0.1


class Pace:
    """Follows how long bodies take, as a moving average.

    A start is recorded at the broker before its body runs. With short bodies it is this round trip that limits the
    rate, unless others are started meanwhile; with long ones those would only be kept from other workers.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._average: float | None = None
        self.ahead = 0
        """How many tasks may be started beside those that have a slot."""

    def note(self, seconds: float) -> None:
        """Take the duration of one more body into account."""
        former = self._average
        average = self._average = seconds if former is None else former + _WEIGHT * (seconds - former)
        self.ahead = int(min(_MOST_AHEAD, self._slots * _AHEAD_SECONDS / max(average, 1e-6)))

    @property
    def is_quick(self) -> bool:
        """True if a slot becomes free so soon that waiting messages may be here already."""
        return self._average is not None and self._average < _QUICK_SECONDS
