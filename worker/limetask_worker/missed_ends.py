"""Tasks that are recorded as started by a living worker which does not have them in hand."""

from __future__ import annotations

from collections.abc import Sequence

from limetask.message import Started
from limetask_worker.vital_signs import VitalSigns

_Key = tuple[str, int]


class MissedEnds:
    """Tells which of them have ended without a record: those that were missing for long, without interruption.

    A worker lets a task go once the broker has confirmed its end, or that it was not begun. That record is mostly here
    before the worker says what it has in hand, but not always: in a cluster it may have gone to a recorder that
    was cut off meanwhile, and come back to the queue behind what was sent later.
    """

    def __init__(self, vital_signs: VitalSigns, seconds: float) -> None:
        """`seconds` without an interruption, by the clock of `vital_signs`, are long."""
        self._vital_signs = vital_signs
        self._seconds = seconds
        self._missing: dict[str, dict[_Key, float]] = {}

    def note(self, worker: str, missing: Sequence[Started]) -> list[Started]:
        """Hear which recorded starts `worker` does not have in hand, and return those that are surely lost."""
        before = self._missing.pop(worker, {})
        now = self._vital_signs.now
        since = {_key_of(one): before.get(_key_of(one), now) for one in missing}
        if since:
            self._missing[worker] = since
        return [one for one in missing if self._vital_signs.listened_since(since[_key_of(one)]) > self._seconds]

    def forget(self, worker: str) -> None:
        """Hear that a worker is gone: what it had is settled otherwise."""
        self._missing.pop(worker, None)


def _key_of(started: Started) -> _Key:
    return started.task_id, started.attempt
