"""Notices that one queue's deliveries come long after the broker has decided on them."""

from __future__ import annotations

import time
from datetime import datetime

from limetask_worker.timings import UNNOTICED_LAG_SECONDS

# A node of a cluster that was cut off may take so long to catch up with what the others have decided.
_CATCH_UP_SECONDS = 30.0


class DeliveryLag:
    """Tells which deliveries of a queue may be out of date: others may have the same message since.

    A node of a cluster that was cut off delivers, once it is back, as new what the others have delivered elsewhere
    meanwhile, as redelivered (seen with RabbitMQ 3.10, up to four seconds later). To a consumer that takes messages at
    any time it looks like this: nothing has come for a while, and then comes what was sent long ago. Its clock and the
    sender's must agree for that to the second.

    Of one asyncio loop.
    """

    def __init__(self) -> None:
        self._last = 0.0
        self._until = 0.0
        self.is_suspected = False

    def begin(self) -> None:
        """Say that a new consumer begins: what waits for it may be old."""
        self._last = time.monotonic()
        self.is_suspected = False

    def note(self, connected_at: float) -> None:
        """Note a delivery, before `is_late` is asked about it; its connection is open since then (time.monotonic)."""
        if connected_at > self._last:
            self._last = connected_at
            self.is_suspected = False
        now = time.monotonic()
        if now - self._last > UNNOTICED_LAG_SECONDS:
            self.is_suspected = True
            self._until = now + _CATCH_UP_SECONDS
        elif self.is_suspected and now > self._until:
            self.is_suspected = False
        self._last = now

    def is_late(self, sent_at: datetime) -> bool:
        """Return whether the noted delivery, of a message sent at `sent_at`, may be out of date.

        A young message ends the suspicion: the log is replayed in its order, so the node has caught up.
        """
        if self.is_suspected and time.time() - sent_at.timestamp() < UNNOTICED_LAG_SECONDS:
            self.is_suspected = False
        return self.is_suspected
