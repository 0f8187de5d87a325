"""limetask at 70 % of what it can run, for a long time: does anything grow?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import figures
from benchmarks.comparison import Tell
from benchmarks.driver import Driver
from benchmarks.machine import described
from benchmarks.measures.draining import measure_draining
from benchmarks.plots import plot_series
from benchmarks.report import markdown_table, number
from benchmarks.services import Services, fresh_place, queue_depth
from benchmarks.starts import Starts
from benchmarks.statistics import percentile
from benchmarks.systems.limetask import LIMETASK_POSTGRESQL
from benchmarks.visit import Size, Visit
from benchmarks.watch import Taken, middle, series, take
from benchmarks.worker import Worker
from limetask.topology import Names

_SHARE_OF_LOAD = 0.7
_SAMPLE_SECONDS = 5.0
_PROBES = 20
_MILLISECONDS = 1000


@dataclass(frozen=True)
class _Sample:
    seconds: float
    latencies: list[float]
    waiting_tasks: int
    waiting_results: int
    taken: dict[str, Taken]


@dataclass
class Soak:
    """What was measured."""

    minutes: float
    most: float
    """Tasks a second that it could run before."""
    measured: str
    """When, and on what."""
    load: float = 0.0
    """Tasks a second that were sent meanwhile."""
    samples: list[_Sample] = field(default_factory=list)

    @classmethod
    def run(cls, services: Services, minutes: float, tasks: int, tell: Tell) -> Soak:
        """Find out with `tasks` tasks what limetask can run here, then have it run 70 % of that for `minutes`."""
        system = LIMETASK_POSTGRESQL
        size = Size(tasks, sent_one_by_one=0, sleeping_tasks=0, slots_seconds=0, round_trips=0, reads=0)
        with fresh_place(services, system) as place, Driver(system, place) as driver:
            visit = Visit(system, services, place, driver, size)
            tell("how much can it run?")
            with visit.starts(size.tasks) as starts:
                driver.send_many("noop", 0, size.tasks)
                visit.ends += size.tasks
                with visit.worker(starts) as worker:
                    measure_draining(visit, worker)
                    most = visit.figures[figures.DRAIN_READABLE.key]
                    soak = cls(minutes, most, described(services.versions()))
                    soak._load(visit, starts, worker, tell)
        return soak

    def _load(self, visit: Visit, starts: Starts, worker: Worker, tell: Tell) -> None:
        with Driver(visit.system, visit.place) as load:
            load.start_load("noop", starts.uncounted, _SHARE_OF_LOAD * self.most)
            self._watch(visit, starts, worker, load.pid, tell)
            self.load = load.stop_load()

    def _watch(self, visit: Visit, starts: Starts, worker: Worker, sender: int, tell: Tell) -> None:
        names = Names(visit.place.namespace)
        begun = time.monotonic()
        while (elapsed := time.monotonic() - begun) < 60 * self.minutes:
            tell(f"{elapsed / 60:.1f} of {self.minutes:g} minutes at {_SHARE_OF_LOAD:.0%} of {self.most:.0f} tasks/s")
            self.samples.append(
                _Sample(
                    seconds=elapsed,
                    latencies=visit.driver.round_trips("noop", starts.uncounted, _PROBES),
                    waiting_tasks=queue_depth(visit.place, names.task_queue("default")),
                    waiting_results=queue_depth(visit.place, names.results_queue),
                    taken=take(visit.services, worker, {"sender": sender}),
                )
            )
            time.sleep(max(0.0, begun + len(self.samples) * _SAMPLE_SECONDS - time.monotonic()))

    def process_names(self) -> list[str]:
        """Return the names of what lived through all of it."""
        return [name for name in self.samples[0].taken if all(name in sample.taken for sample in self.samples)]


def soak_text(soak: Soak) -> str:
    """Return what the page says of it: the medians of the first third and of the last one."""
    intro = (
        f"{soak.minutes:g} minutes, {number(soak.load)} tasks/s sent, {soak.load / soak.most:.0%} of the "
        f"{number(soak.most)}/s that it ran from a queue before; {soak.measured}"
    )
    thirds = (soak.samples[: len(soak.samples) // 3 or 1], soak.samples[-(len(soak.samples) // 3 or 1) :])
    rows = [
        _row("round trip p50, ms", thirds, lambda samples: _latency(samples, 0.5), 1),
        _row("round trip p99, ms", thirds, lambda samples: _latency(samples, 0.99), 1),
        _row("waiting tasks", thirds, lambda samples: middle([one.waiting_tasks for one in samples])),
        _row("waiting results", thirds, lambda samples: middle([one.waiting_results for one in samples])),
        *(_memory_row(name, thirds) for name in soak.process_names()),
        *(_descriptors_row(name, thirds) for name in soak.process_names()),
    ]
    table = markdown_table(("", "first third", "last third", "change"), rows)
    return f"{intro}\n\n{table}\n\n![Latency, queues, memory and open files over time](benchmarks-soak.svg)"


def plot_soak(soak: Soak, path: Path) -> None:
    """Draw all of it over time."""
    samples = soak.samples
    taken = [sample.taken for sample in samples]
    names = soak.process_names()
    latencies = {
        f"p{100 * share:g}": [_MILLISECONDS * percentile(one.latencies, share) for one in samples]
        for share in (0.5, 0.95)
    }
    waiting = {
        "tasks": [float(one.waiting_tasks) for one in samples],
        "results": [float(one.waiting_results) for one in samples],
    }
    memory = {name: [one.mib for one in series(taken, name)] for name in names}
    files = {name: [float(one.descriptors) for one in series(taken, name)] for name in names}
    panels: list[tuple[str, Mapping[str, Sequence[float]]]] = [
        ("round trip, ms", latencies),
        ("waiting in the queues", waiting),
        ("memory, MiB", memory),
        ("open files", files),
    ]
    plot_series(path, [sample.seconds for sample in samples], panels)


_Thirds = tuple[Sequence[_Sample], Sequence[_Sample]]


def _row(title: str, thirds: _Thirds, value: Callable[[Sequence[_Sample]], float], digits: int = 0) -> list[str]:
    first, last = (value(third) for third in thirds)
    change = f"{100 * (last / first - 1):+.0f} %" if first else "-"
    return [title, number(first, digits), number(last, digits), change]


def _memory_row(name: str, thirds: _Thirds) -> list[str]:
    return _row(f"memory of {name}, MiB", thirds, lambda samples: middle([one.taken[name].mib for one in samples]), 1)


def _descriptors_row(name: str, thirds: _Thirds) -> list[str]:
    return _row(
        f"open files of {name}", thirds, lambda samples: middle([float(one.taken[name].descriptors) for one in samples])
    )


def _latency(samples: Iterable[_Sample], share: float) -> float:
    return _MILLISECONDS * percentile([latency for one in samples for latency in one.latencies], share)
