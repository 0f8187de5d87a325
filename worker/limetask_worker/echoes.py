"""This recorder's messages to itself, and which of them prove that it hears what others have sent before them."""

from __future__ import annotations

import asyncio
from collections import deque

# Its confirm is here when an echo is heard, or just behind it on the other connection.
_CONFIRM_SECONDS = 1.0
_REMEMBERED = 1000


class Echoes:
    """Remembers which echoes the broker has taken in time.

    One that it has kept waiting proves nothing: in an alarm, for one, it reads nobody's messages, and afterwards it may
    come to those of one connection before those of the others. Of one asyncio loop.
    """

    def __init__(self) -> None:
        self._in_time: deque[float] = deque(maxlen=_REMEMBERED)
        self._newest = 0.0
        self._taken = asyncio.Event()

    def note_sent(self, sent_at: float) -> None:
        """Note that an echo goes to the broker now; `sent_at` is its time, by time.monotonic."""
        self._newest = sent_at
        self._taken.clear()

    def note_taken(self, sent_at: float) -> None:
        """Note that the broker has confirmed an echo in time."""
        self._in_time.append(sent_at)
        if sent_at == self._newest:
            self._taken.set()

    async def was_taken_in_time(self, sent_at: float) -> bool:
        """Return True if the broker has taken this echo in time; waits a moment for the confirm of the newest one."""
        if sent_at == self._newest and not self._taken.is_set():
            try:
                async with asyncio.timeout(_CONFIRM_SECONDS):
                    await self._taken.wait()
            except TimeoutError:
                return False
        return sent_at in self._in_time
