"""Which workers have given a sign of life lately: a host that dies as a whole cannot say so."""

from __future__ import annotations

from collections.abc import Iterable

# A longer pause between two echoes, as a share of the timeout, interrupts the listening: signs of life that came
# meanwhile may have been lost, or may have gone to another recorder. Three echoes fit into it.
_LONGEST_PAUSE = 0.5
# For so long a silent worker is remembered: whoever asks about it meanwhile is told that it is silent.
_REMEMBERED_SECONDS = 3600.0


class VitalSigns:
    """Remembers when each worker was heard from last, by a clock that runs only while signs of life can be heard.

    Being connected proves nothing: a recorder that stands by, or is cut off from the queue's leader, hears nobody, and
    all workers are well. So time is measured by *echoes*: messages that the recorder sends to itself by the same queue.
    A worker counts as silent only if echoes went on arriving for the whole timeout and its signs of life did not.
    """

    def __init__(self, timeout: float) -> None:
        """After `timeout` seconds without a sign a worker counts as silent."""
        self._timeout = timeout
        self._now = 0.0
        self._listening_since = 0.0
        self._heard_at: dict[str, float] = {}
        self._heard_since_echo: set[str] = set()

    @property
    def now(self) -> float:
        """What time it is, in seconds: it stands still while nothing can be heard."""
        return self._now

    def listened_since(self, moment: float) -> float:
        """Return for how many seconds it has listened since this time without a pause, up to now."""
        return self._now - max(moment, self._listening_since)

    def hear(self, workers: Iterable[str]) -> None:
        """Note a sign of life of each of these workers."""
        self._heard_since_echo.update(workers)

    def hear_echo(self, sent_at: float) -> None:
        """Move the clock to the moment at which an echo was sent, by this process's monotonic clock.

        After a pause everybody gets the whole time again. An echo that is delivered again changes nothing.
        """
        if sent_at - self._now > self._timeout * _LONGEST_PAUSE:
            self._listening_since = sent_at
        self._now = max(self._now, sent_at)
        self._heard_at |= dict.fromkeys(self._heard_since_echo, self._now)
        self._heard_since_echo.clear()

    def is_silent(self, worker: str) -> bool:
        """Return True if this worker has been silent for too long.

        One that is asked about for the first time, and was never heard, has the whole time before it: it may be young.
        Another recorder has written its starts while this one stood still, and its signs are further back in the queue.
        """
        heard_at = self._heard_at.setdefault(worker, self._now)
        if worker in self._heard_since_echo:
            return False
        return max(heard_at, self._listening_since) < self._now - self._timeout

    def silent(self, workers: Iterable[str]) -> list[str]:
        """Return those of these workers that have been silent for too long; call it for all, after each echo."""
        silent = [worker for worker in workers if self.is_silent(worker)]
        limit = self._now - self._timeout - _REMEMBERED_SECONDS
        if self._listening_since < limit:  # else nobody has been silent for so long, as far as is known
            self._heard_at = {worker: moment for worker, moment in self._heard_at.items() if moment > limit}
        return silent
