"""Which dead letters are wanted: those that a filter fits, or those with given ids."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase

from limetask.dead_letters.letter import DeadLetter


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Which dead letters: those to which everything that is given applies. Nothing given: all.

    `task` is a task's name or a shell pattern (`shop.*`), `app` an application's name, `reason` a part of the reason,
    in any case. `older_than` and `newer_than` are the time since the last death; `limit` is how many at most, in the
    order of the queue.
    """

    task: str | None = None
    app: str | None = None
    reason: str | None = None
    older_than: timedelta | None = None
    newer_than: timedelta | None = None
    limit: int | None = None

    def matches(self, letter: DeadLetter, now: datetime) -> bool:
        """Return True if everything but `limit` applies to a letter. Without a time of death, no age applies."""
        return (
            (self.task is None or fnmatchcase(letter.task_name or "", self.task))
            and (self.app is None or letter.app == self.app)
            and (self.reason is None or self.reason.casefold() in letter.reason.casefold())
            and self._fits_age(letter, now)
        )

    def _fits_age(self, letter: DeadLetter, now: datetime) -> bool:
        if self.older_than is None and self.newer_than is None:
            return True
        if letter.last_died_at is None:
            return False
        age = now - letter.last_died_at
        is_old_enough = self.older_than is None or age >= self.older_than
        return is_old_enough and (self.newer_than is None or age <= self.newer_than)


Selection = DeadLetterFilter | Iterable[str]
"""A filter, or the ids of single letters."""

ALL = DeadLetterFilter()


class Selector:
    """Chooses letters by a filter or by their ids, and remembers which ids it has met."""

    def __init__(self, which: Selection) -> None:
        self._now = datetime.now(UTC)
        self._filter = which if isinstance(which, DeadLetterFilter) else None
        # A text is one id, though Python would take it for many of one character.
        self._ids = () if isinstance(which, DeadLetterFilter) else (which,) if isinstance(which, str) else tuple(which)
        self._wanted = set(self._ids)
        self._met: set[str] = set()
        self._count = 0

    @property
    def is_full(self) -> bool:
        """True when the filter's limit is reached: nothing more is wanted."""
        limit = self._filter.limit if self._filter is not None else None
        return limit is not None and self._count >= limit

    def wants(self, letter: DeadLetter) -> bool:
        """Return True for a letter that is chosen; call it once for each."""
        is_wanted = not self.is_full and self._is_chosen(letter)
        self._count += is_wanted
        return is_wanted

    def missing(self) -> tuple[str, ...]:
        """Return the ids that no letter had so far."""
        return tuple(letter_id for letter_id in self._ids if letter_id not in self._met)

    def _is_chosen(self, letter: DeadLetter) -> bool:
        if self._filter is not None:
            return self._filter.matches(letter, self._now)
        self._met.add(letter.id)
        return letter.id in self._wanted
