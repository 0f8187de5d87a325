"""How long it takes from sending a task to knowing its end, and to read an end that was there before."""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks import figures
from benchmarks.driver import Driver
from benchmarks.figures import Figure
from benchmarks.starts import Starts
from benchmarks.statistics import percentile
from benchmarks.visit import Visit

_WARM_UP = 50
_AT_ONCE = 50
_MILLISECONDS = 1000
_DEADLINE_SECONDS = 20
_SHARE_OF_LOAD = 0.5


def measure_idle(visit: Visit, starts: Starts) -> None:
    """Send and await tasks while the worker has nothing else to do."""
    visit.driver.round_trips("noop", starts.uncounted, _WARM_UP)
    seconds = _round_trips(visit, starts)
    _note(visit, seconds, (figures.IDLE_P50, figures.IDLE_P95, figures.IDLE_P99))


def measure_half_load(visit: Visit, starts: Starts) -> None:
    """The same while another process sends half of what the worker can run."""
    with Driver(visit.system, visit.place) as load:
        load.round_trips("noop", starts.uncounted, _WARM_UP)
        load.start_load("noop", starts.uncounted, _SHARE_OF_LOAD * visit.figures[figures.DRAIN_READABLE.key])
        seconds = _round_trips(visit, starts)
        visit.figures[figures.HALF_LOAD.key] = load.stop_load()
        # The queue is in order: when this one has ended, all others have.
        load.round_trips("noop", starts.uncounted, 1)
    _note(visit, seconds, (figures.HALF_P50, figures.HALF_P95, figures.HALF_P99))


def measure_reading(visit: Visit) -> None:
    """Read the ends of the tasks that were sent last, one by one."""
    visit.driver.read_each(_WARM_UP)
    seconds = _until_enough(visit.driver.read_each, visit.size.reads)
    visit.figures[figures.READS.key] = len(seconds) / sum(seconds)


def _round_trips(visit: Visit, starts: Starts) -> list[float]:
    return _until_enough(
        lambda count: visit.driver.round_trips("noop", starts.uncounted, count), visit.size.round_trips
    )


def _until_enough(measure: Callable[[int], list[float]], wanted: int) -> list[float]:
    """Return the seconds of each; fewer than wanted when a system takes too long for them."""
    seconds: list[float] = []
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while len(seconds) < wanted and time.monotonic() < deadline:
        seconds += measure(min(_AT_ONCE, wanted - len(seconds)))
    return seconds


def _note(visit: Visit, seconds: list[float], columns: tuple[Figure, Figure, Figure]) -> None:
    for figure, share in zip(columns, (0.5, 0.95, 0.99), strict=True):
        visit.figures[figure.key] = _MILLISECONDS * percentile(seconds, share)
