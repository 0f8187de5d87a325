"""What a measure works with: one system in one run, at its place, with its sender."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from benchmarks.driver import Driver
from benchmarks.place import Place
from benchmarks.services import Services
from benchmarks.starts import Starts
from benchmarks.systems.system import System
from benchmarks.worker import Worker


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    tasks: int
    """No-op tasks that are queued before a worker starts."""
    sent_one_by_one: int
    sleeping_tasks: int
    """Tasks that sleep for 1 ms; of those that sleep for 10 ms there are as many as take `slots_seconds`."""
    slots_seconds: float
    round_trips: int
    reads: int
    processes: int = 2
    """Processes of each worker that run tasks."""


@dataclass
class Visit:
    """One system in one run; `figures` is what was measured so far, by the keys of `benchmarks.figures`."""

    system: System
    services: Services
    place: Place
    driver: Driver
    size: Size
    figures: dict[str, float] = field(default_factory=dict)
    ends: int = 0
    """How many ends must be readable when all tasks have run that were sent so far."""
    _serials: Iterator[int] = field(default_factory=count)

    @contextmanager
    def starts(self, tasks: int) -> Iterator[Starts]:
        """Give what counts the starts of as many tasks."""
        starts = Starts(Path(self.place.folder) / f"starts-{next(self._serials)}", tasks)
        try:
            yield starts
        finally:
            starts.close()

    def worker(self, starts: Starts, processes: int | None = None) -> Worker:
        """Start the system's worker."""
        return Worker(self.system, self.place, starts, processes or self.size.processes)
