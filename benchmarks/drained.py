"""How many events the raw limit has drained, in shared memory: its pendant to ends that can be read."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from benchmarks.place import Place

_COUNT = struct.Struct("q")


class DrainedCount:
    """What the draining process says."""

    def __init__(self, place: Place) -> None:
        with _path(place).open("w+b") as file:
            file.truncate(_COUNT.size)
            self._memory = mmap.mmap(file.fileno(), 0)

    def set(self, count: int) -> None:
        """Say that so many are drained."""
        _COUNT.pack_into(self._memory, 0, count)


def count_drained(place: Place) -> int:
    """Return how many are drained."""
    path = _path(place)
    return _COUNT.unpack(path.read_bytes())[0] if path.exists() and path.stat().st_size else 0


def _path(place: Place) -> Path:
    return Path(place.folder) / "drained"
