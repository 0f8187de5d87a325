"""Ids of tasks, or names, in so many at a time as every database takes as parameters of one statement."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

# SQLite before 3.32 takes no more than 999 parameters.
_MANY_IDS = 500


def in_parts(ids: Iterable[str]) -> Iterator[list[str]]:
    """Yield these ids, each once and in order: two writers that lock rows do so in one order."""
    ordered = sorted(set(ids))
    for first in range(0, len(ordered), _MANY_IDS):
        yield ordered[first : first + _MANY_IDS]
