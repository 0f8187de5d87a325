"""Whether the kernel has killed a process lately for lack of memory.

A process that gets SIGKILL cannot tell who sent it. The kernel counts those that it sends itself.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from pathlib import Path

# A process with much memory takes a while to end, and the count rises before that.
_RECENT_SECONDS = 15.0
_LOOK_EVERY_SECONDS = 1.0
_GROUPS = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")
_OF_THE_MACHINE = Path("/proc/vmstat")


class MemoryKills:
    """Follows the kernel's count for the control group of this process, or for the machine if that has none."""

    def __init__(self, sources: list[Path] | None = None) -> None:
        """`sources` are the files that may have the count; the first that has it is followed."""
        candidates = list(_sources()) if sources is None else sources
        self._source = next((path for path in candidates if _count_in(path) is not None), None)
        self._count = self._read()
        self._rose_at = -math.inf

    def are_recent(self) -> bool:
        """Return True if the count has risen in the last seconds."""
        self._look()
        return time.monotonic() - self._rose_at < _RECENT_SECONDS

    async def watch(self) -> None:
        """Look every second, so that a rise is known to be recent."""
        while True:
            self._look()
            await asyncio.sleep(_LOOK_EVERY_SECONDS)

    def _look(self) -> None:
        count = self._read()
        if count is None:
            return  # with no file descriptor free, say: what is read later must not be taken for a rise
        if self._count is not None and count > self._count:
            self._rose_at = time.monotonic()
        self._count = count

    def _read(self) -> int | None:
        return None if self._source is None else _count_in(self._source)


def _sources() -> Iterator[Path]:
    """Give the files of version 2, those of version 1, and the machine's; in a container its own group is the root."""
    for group in _groups():
        hierarchy, controllers, path = group.split(":", 2)
        is_first_version = "memory" in controllers.split(",")
        if hierarchy == "0" or is_first_version:
            root = _MOUNT / "memory" if is_first_version else _MOUNT
            name = "memory.oom_control" if is_first_version else "memory.events"
            yield root / path.strip("/") / name
            yield root / name
    yield _OF_THE_MACHINE


def _groups() -> list[str]:
    try:
        return [line for line in _GROUPS.read_text().splitlines() if line.count(":") >= 2]
    except OSError:  # no Linux
        return []


def _count_in(path: Path) -> int | None:
    """Return the number on the line `oom_kill`; None if there is no such file, or no such line."""
    try:
        words = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return None
    return next((int(line[1]) for line in words if len(line) == 2 and line[0] == "oom_kill"), None)
