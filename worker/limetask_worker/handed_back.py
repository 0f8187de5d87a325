"""Which tasks their workers have let go of without beginning them, as far as the recorder has been told."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

# Each takes some 200 bytes. What is forgotten waits a little longer when it is claimed, and runs all the same.
_MOST = 50_000

TaskKey = tuple[str, int]
"""A task's id, and which attempt at it."""


class HandedBack:
    """Remembers the newest of them: nobody else is about to begin these."""

    def __init__(self) -> None:
        self._keys: dict[TaskKey, None] = {}

    def note(self, keys: Iterable[TaskKey]) -> None:
        self._keys |= dict.fromkeys(keys)
        for key in list(islice(self._keys, max(0, len(self._keys) - _MOST))):
            del self._keys[key]

    def __contains__(self, key: TaskKey) -> bool:
        return key in self._keys
