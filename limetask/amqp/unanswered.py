"""Publishes that the broker neither confirms nor refuses: after a partition of its cluster it may never do so."""

from __future__ import annotations

from collections import deque

LOOK_SECONDS = 15.0
"""How often to look."""

_LOOKS = 4


class Unanswered:
    """Finds publishes that have waited for a minute, by looking now and then: it costs a publish nothing."""

    def __init__(self) -> None:
        self._newest: deque[int] = deque(maxlen=_LOOKS)

    def look(self, oldest_unanswered: int | None, newest: int, *, is_blocked: bool) -> bool:
        """Return True if a publish has waited for too long. Publishes are numbered, both numbers are of now.

        While the broker blocks the connection, as in a memory alarm, nothing has waited yet.
        """
        if is_blocked:
            self._newest.clear()
            return False
        was_long_ago = self._newest[0] if len(self._newest) == _LOOKS else 0
        self._newest.append(newest)
        return oldest_unanswered is not None and oldest_unanswered <= was_long_ago
