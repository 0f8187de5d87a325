"""limetask with very much of everything: waiting tasks, names, applications, processes, bytes, rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median
from typing import Any

from benchmarks import BenchmarkError, figures
from benchmarks.comparison import Tell
from benchmarks.driver import Driver
from benchmarks.machine import described
from benchmarks.measures.draining import check_once, measure_draining
from benchmarks.report import markdown_table, number
from benchmarks.rows import Rows, read_p99_milliseconds
from benchmarks.services import Services, fresh_place
from benchmarks.starts import ARGUMENT_BYTES
from benchmarks.systems.limetask import APPLICATIONS, LIMETASK_POSTGRESQL, SPREAD, TASK_NAMES
from benchmarks.visit import Size, Visit
from benchmarks.watch import Taken, take
from benchmarks.worker import Worker

SCALE_MEASURES = {
    "backlog": "a million waiting tasks: rates at both ends, memory",
    "names": "200 task names and 100 applications",
    "processes": "1, 2 and 4 task processes",
    "arguments": "arguments of 100 KB",
    "rows": "ten million rows in the store: reading, recording, pruning",
}

_LARGE_BYTES = 100_000
_CHUNKS = 100
_WARM_UP = 10_000
_SAMPLE_SECONDS = 0.5
_SHARE_OF_ENDS = 0.2
"""What counts as the beginning, and as the end, of a backlog."""


@dataclass(frozen=True)
class ScaleSize:
    """How much is much."""

    waiting: int
    """Tasks in a long queue."""
    rows: int
    """Rows in a large store."""
    tasks: int
    """Tasks that are queued and run in each of the other measures."""
    runs: int
    """How often those are taken."""


@dataclass
class ScaleResults:
    """Tables by their titles, and what is wanted there."""

    measured: str
    """When, and on what."""

    tables: list[str] = field(default_factory=list)

    def add(self, title: str, wanted: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Keep a table."""
        self.tables.append(f"### {title}\n\nWanted: {wanted}.\n\n{markdown_table(columns, rows)}")


def measure_scale(services: Services, size: ScaleSize, measures: Sequence[str], tell: Tell) -> ScaleResults:
    """Take the measures that are asked for."""
    functions: dict[str, Callable[[Services, ScaleSize, ScaleResults], None]] = {
        "backlog": _measure_backlog,
        "names": _measure_names,
        "processes": _measure_processes,
        "arguments": _measure_arguments,
        "rows": _measure_rows,
    }
    results = ScaleResults(described(services.versions()))
    for name in measures:
        tell(SCALE_MEASURES[name])
        functions[name](services, size, results)
    return results


def scale_text(results: ScaleResults) -> str:
    """Return what the page says of it."""
    return "\n\n".join([results.measured, *results.tables])


@contextmanager
def _visit(services: Services) -> Iterator[Visit]:
    system = LIMETASK_POSTGRESQL
    size = Size(tasks=0, sent_one_by_one=0, sleeping_tasks=0, slots_seconds=0, round_trips=0, reads=0)
    with fresh_place(services, system) as place, Driver(system, place) as driver:
        yield Visit(system, services, place, driver, size)


def _drain(
    visit: Visit, tasks: int, task: str = "noop", length: int = ARGUMENT_BYTES, processes: int | None = None
) -> dict[str, float]:
    """Send tasks, have a worker run them, and return the figures."""
    with visit.starts(tasks) as starts:
        sent = tasks / visit.driver.send_many(task, 0, tasks, length)
        visit.ends += tasks
        with visit.worker(starts, processes) as worker:
            measure_draining(visit, worker)
    return visit.figures | {figures.SEND_MANY.key: sent}


_RATES = (figures.SEND_MANY, figures.DRAIN, figures.DRAIN_READABLE)
_RATE_COLUMNS = tuple(f"{figure.title}, {figure.unit}" for figure in _RATES)


def _rates(found: dict[str, float]) -> list[str]:
    return [number(found[figure.key]) for figure in _RATES]


def _medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the median of each figure that all runs have."""
    return {key: median(run[key] for run in runs) for key in runs[0] if all(key in run for run in runs)}


def _in_turn(services: Services, size: ScaleSize, kinds: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Run tasks of each kind in turn, some times; return the medians by the name of the kind."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in kinds}
    for _ in range(size.runs):
        for name, options in kinds.items():
            with _visit(services) as visit:
                found[name].append(_drain(visit, **({"tasks": size.tasks} | options)))
    return {name: _medians(runs) for name, runs in found.items()}


# --- a million waiting tasks ---


def _measure_backlog(services: Services, size: ScaleSize, results: ScaleResults) -> None:
    chunk = max(1, size.waiting // _CHUNKS)
    with _visit(services) as visit, visit.starts(chunk * _CHUNKS) as starts:
        sent = [chunk / visit.driver.send_many("noop", first, chunk) for first in range(0, starts.tasks, chunk)]
        with visit.worker(starts) as worker:
            samples = _sample_backlog(visit, worker)
    end = max(1, int(_SHARE_OF_ENDS * len(sent)))
    moments = [(samples[0].at, 0), *((sample.at, sample.started) for sample in samples)]
    started = _rates_at_ends(moments, starts.tasks)
    rows = [
        _ends_row("sent", sum(sent[:end]) / end, sum(sent[-end:]) / end),
        _ends_row("started", *started),
    ]
    share = f"{100 * _SHARE_OF_ENDS:g} %"
    columns: tuple[str, ...] = (f"{number(starts.tasks)} tasks", f"first {share}, /s", f"last {share}, /s", "change")
    results.add("A long queue", "the last part within 10 % of the first", columns, rows)
    columns = ("process", "10 % run", "50 % run", "all run")
    results.add("Memory while it gets shorter, MiB", "flat", columns, _memory_rows(samples, starts.tasks))


@dataclass(frozen=True)
class _Sample:
    at: float
    started: int
    taken: dict[str, Taken]


def _sample_backlog(visit: Visit, worker: Worker) -> list[_Sample]:
    """Watch until all tasks are started."""
    samples: list[_Sample] = []
    others = {"sender": visit.driver.pid}

    def all_started() -> bool:
        taken = take(visit.services, worker, others)
        samples.append(_Sample(time.time(), worker.starts.started, taken))
        return samples[-1].started == worker.starts.tasks

    worker.wait_until(all_started, lambda: worker.starts.started, _SAMPLE_SECONDS)
    check_once(worker)
    return [*samples[:-1], replace(samples[-1], at=worker.starts.span().last)]


def _rates_at_ends(moments: Sequence[tuple[float, int]], tasks: int) -> tuple[float, float]:
    """Return the starts a second of the first and of the last part, without the worker's own start."""
    part = _SHARE_OF_ENDS * tasks
    begun = min(_WARM_UP, part)
    first = part / (_moment_of(begun + part, moments) - _moment_of(begun, moments))
    last = part / (_moment_of(tasks, moments) - _moment_of(tasks - part, moments))
    return first, last


def _moment_of(wanted: float, moments: Sequence[tuple[float, int]]) -> float:
    """Return when as many tasks were started, between the samples before and after."""
    for (earlier, fewer), (later, more) in pairwise(moments):
        if fewer < wanted <= more:
            return earlier + (later - earlier) * (wanted - fewer) / (more - fewer)
    raise BenchmarkError(f"there is no moment at which {wanted:g} tasks were started")


def _ends_row(what: str, first: float, last: float) -> list[str]:
    return [what, number(first), number(last), f"{100 * (last / first - 1):+.0f} %"]


def _memory_rows(samples: Sequence[_Sample], tasks: int) -> list[list[str]]:
    chosen = [next(one for one in samples if one.started >= share * tasks) for share in (0.1, 0.5, 1.0)]
    names = [name for name in chosen[0].taken if all(name in sample.taken for sample in chosen)]
    return [[name, *(number(sample.taken[name].mib) for sample in chosen)] for name in names]


# --- names, processes, bytes ---


def _measure_names(services: Services, size: ScaleSize, results: ScaleResults) -> None:
    kinds = {"1 and 1": {"task": "noop"}, f"{TASK_NAMES} and {APPLICATIONS}": {"task": SPREAD}}
    rows = [[name, *_rates(found)] for name, found in _in_turn(services, size, kinds).items()]
    results.add("Many names", "no difference", ("task names and applications", *_RATE_COLUMNS), rows)


def _measure_processes(services: Services, size: ScaleSize, results: ScaleResults) -> None:
    kinds = {str(processes): {"processes": processes} for processes in (1, 2, 4)}
    rows = [[name, *_rates(found)] for name, found in _in_turn(services, size, kinds).items()]
    results.add(
        "Task processes", "more processes run more, as far as there are cores", ("processes", *_RATE_COLUMNS), rows
    )


def _measure_arguments(services: Services, size: ScaleSize, results: ScaleResults) -> None:
    kinds = {number(length): {"tasks": size.tasks // 10, "length": length} for length in (ARGUMENT_BYTES, _LARGE_BYTES)}
    rows = [[name, *_rates(found)] for name, found in _in_turn(services, size, kinds).items()]
    results.add("Large arguments", "they pass", ("bytes", *_RATE_COLUMNS), rows)


# --- rows ---


def _measure_rows(services: Services, size: ScaleSize, results: ScaleResults) -> None:
    with _visit(services) as visit:
        _drain(visit, size.tasks)  # the recorder makes the table
        with Rows(visit.place.store_url) as rows:
            lines = [_row_of(visit, rows, count, size) for count in (size.tasks, size.rows)]
    recorded = f"{figures.DRAIN_READABLE.title}, {figures.DRAIN_READABLE.unit}"
    columns = ("rows", recorded, "recorder, µs a task", "`get_status` p99, ms", "1 000 rows pruned, ms")
    wanted = "recording and pruning not slowed by more than 20 %, `get_status` p99 under 5 ms"
    results.add("Rows in the store", wanted, columns, lines)


def _row_of(visit: Visit, rows: Rows, count: int, size: ScaleSize) -> list[str]:
    readable = rows.fill(count)
    found = _medians([_drain(visit, size.tasks) for _ in range(size.runs)])
    read = read_p99_milliseconds(visit.place, readable)
    recorder = found.get(figures.CPU_RECORDER.key, 0)
    recorded = number(found[figures.DRAIN_READABLE.key])
    return [number(count), recorded, number(recorder), number(read, 2), number(rows.prune_milliseconds(count), 1)]
