"""When bodies began, in memory that all processes share: the same for every system, and under a microsecond a task.

A task says its number in the first characters of its argument. There is one byte for each number, so that no two
threads ever write the same one, and none has to wait for another: it counts how often that task began. Each process
also has a small file with the times of its first and its last body.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path

STARTS_VARIABLE = "LIMETASK_BENCHMARK_STARTS"
ARGUMENT_BYTES = 100

_DIGITS = 8
_TIMES = struct.Struct("dd")


def argument(number: int, length: int = ARGUMENT_BYTES) -> str:
    """Return the argument of the task with this number."""
    return str(number).zfill(_DIGITS).ljust(length, "x")


# --- in a worker ---


class _Notes:
    """What one process of a worker writes down."""

    def __init__(self, path: str) -> None:
        with Path(path).open("r+b") as file:
            self._counts = mmap.mmap(file.fileno(), 0)
        with Path(f"{path}.{os.getpid()}").open("w+b") as file:
            file.truncate(_TIMES.size)
            self._times = mmap.mmap(file.fileno(), _TIMES.size)
        self._first = time.time()

    def note(self, number: int) -> None:
        counts = self._counts
        counts[number] = (counts[number] + 1) & 255
        _TIMES.pack_into(self._times, 0, self._first, time.time())


_notes: _Notes | None = None
_opening = threading.Lock()


def note_start(text: str) -> None:
    """Write down that the body of the task with this argument begins now. Safe in any thread and after a fork."""
    (_notes or _open_notes()).note(int(text[:_DIGITS]))


def _open_notes() -> _Notes:
    global _notes
    with _opening:
        if _notes is None:
            _notes = _Notes(os.environ[STARTS_VARIABLE])
        return _notes


def _forget_notes() -> None:
    global _notes, _opening
    _notes, _opening = None, threading.Lock()


os.register_at_fork(after_in_child=_forget_notes)


# --- in the benchmark ---


@dataclass(frozen=True)
class Span:
    """The times of the first and the last body, in Unix seconds."""

    first: float
    last: float

    @property
    def seconds(self) -> float:
        return self.last - self.first


class Starts:
    """What the processes of a worker have written down about the tasks 0 to `tasks` - 1.

    Further tasks may have the number `uncounted`.
    """

    def __init__(self, path: Path, tasks: int) -> None:
        self.path = path
        self.tasks = tasks
        self.uncounted = tasks
        path.write_bytes(bytes(tasks + 1))
        with path.open("r+b") as file:
            self._counts = mmap.mmap(file.fileno(), 0)

    def environment(self) -> dict[str, str]:
        """Return what a worker needs in its environment to write here."""
        return {STARTS_VARIABLE: str(self.path)}

    @property
    def started(self) -> int:
        """How many tasks have begun."""
        return self.tasks - self._counts[: self.tasks].count(0)

    @property
    def started_again(self) -> int:
        """How many tasks have begun more than once."""
        counts = self._counts[: self.tasks]
        return self.tasks - counts.count(0) - counts.count(1)

    @property
    def processes(self) -> int:
        """How many processes have begun a body."""
        return len(self._times())

    def pids(self) -> list[int]:
        """Return the ids of these processes."""
        return [int(file.suffix[1:]) for file in self._files()]

    def span(self) -> Span:
        """Return the times of the first and the last body, of all processes together."""
        times = self._times()
        return Span(min(first for first, _ in times), max(last for _, last in times))

    def close(self) -> None:
        """Let go of the memory."""
        self._counts.close()

    def _times(self) -> list[tuple[float, float]]:
        contents = [file.read_bytes() for file in self._files()]
        times = [_TIMES.unpack(content) for content in contents if len(content) == _TIMES.size]
        return [(first, last) for first, last in times if first]

    def _files(self) -> list[Path]:
        return list(self.path.parent.glob(f"{self.path.name}.*"))
