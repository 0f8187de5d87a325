"""Who has started one attempt at a task, and how often that counts: pure, as it is kept in the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from limetask.message import Released, Started


@dataclass(frozen=True, slots=True)
class Start:
    """One start of an attempt: a worker starts no attempt twice at the same time."""

    worker: str
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Starts:
    """The starts of an attempt, as far as nobody has told that their bodies did not begin.

    `newest` is who has the task now, and None if that start was taken back. `earlier` are those from whom a late task
    was taken over, which happens again and again while workers lose their connections: any of them may yet tell that
    its body did not begin, in any order, and more than once.
    """

    newest: Start | None
    earlier: tuple[Start, ...] = ()

    @property
    def count(self) -> int:
        """How often the body has begun, for all that is known."""
        return len(self.earlier) + (self.newest is not None)

    def taken_over_by(self, start: Start) -> Starts:
        earlier = (*self.earlier, *([self.newest] if self.newest is not None else ()))
        return Starts(start, tuple(one for one in earlier if one != start))

    def without(self, start: Start) -> Starts:
        return Starts(None if self.newest == start else self.newest, tuple(one for one in self.earlier if one != start))


def start_of(told: Started | Released) -> Start:
    """Return the start that a worker tells of, or takes back."""
    return Start(told.worker, told.started_at)


def starts_in(row: Mapping[str, Any]) -> Starts:
    """Return the starts that a row of a running task holds."""
    newest = None if row["worker"] is None else Start(row["worker"], row["started_at"])
    earlier = orjson.loads(row["earlier_starts"] or "[]")
    return Starts(newest, tuple(Start(worker, datetime.fromisoformat(moment)) for worker, moment in earlier))


def earlier_starts_text(starts: Starts) -> str | None:
    """Return how a row holds the earlier starts: as JSON, or not at all."""
    earlier = [(one.worker, one.started_at) for one in starts.earlier]
    return orjson.dumps(earlier).decode() if earlier else None
