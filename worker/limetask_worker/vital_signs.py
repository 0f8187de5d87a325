"""Which workers have been heard of lately: a host that dies as a whole cannot say so."""

from __future__ import annotations

import time
from collections.abc import Iterable


class VitalSigns:
    """Remembers when each worker was heard of last.

    Whoever was never heard of counts from the moment at which listening began: a recorder that has just started, or
    has just come back to the broker, presumes nobody dead.
    """

    def __init__(self, timeout: float) -> None:
        """After `timeout` seconds without a sign a worker counts as silent."""
        self._timeout = timeout
        self._heard: dict[str, float] = {}
        self._listening_since = time.monotonic()

    def hear(self, workers: Iterable[str]) -> None:
        """Note a sign of life of each of these workers."""
        self._heard |= dict.fromkeys(workers, time.monotonic())

    def listen_anew(self) -> None:
        """Give everybody the whole time again: nothing could be heard until now."""
        self._listening_since = time.monotonic()

    def is_silent(self, worker: str) -> bool:
        """Return True if this worker has been silent for too long."""
        return self._last_sign(worker) < time.monotonic() - self._timeout

    def silent(self, workers: Iterable[str]) -> list[str]:
        """Return those of these workers that have been silent for too long; who is not asked for is forgotten."""
        limit = time.monotonic() - self._timeout
        asked = list(workers)
        self._heard = {worker: moment for worker, moment in self._heard.items() if worker in asked or moment > limit}
        return [worker for worker in asked if self._last_sign(worker) < limit]

    def _last_sign(self, worker: str) -> float:
        return max(self._heard.get(worker, 0.0), self._listening_since)
