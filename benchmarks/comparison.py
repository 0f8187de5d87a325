"""Who is measured when: every system in turn, and all of them again, so that none has a better hour than another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

from benchmarks import figures
from benchmarks.driver import Driver
from benchmarks.machine import machine, now, versions
from benchmarks.measures.draining import measure_draining, measure_sleeping
from benchmarks.measures.footprint import measure_client_memory, measure_import, measure_worker_memory
from benchmarks.measures.round_trips import measure_half_load, measure_idle, measure_reading
from benchmarks.measures.sending import measure_sending
from benchmarks.results import Results, Run
from benchmarks.services import Services, fresh_place
from benchmarks.systems.system import System
from benchmarks.visit import Size, Visit

MEASURES = {
    "sleeping": "tasks that sleep for 1 ms and for 10 ms",
    "round-trips": "from sending to knowing the end, idle and at half load, and reading ends",
    "footprint": "memory, and time to import",
}
"""What can be left out; sending and running no-op tasks is always measured."""

Tell = Callable[[str], None]


def compare(
    services: Services,
    systems: Sequence[System],
    measures: Sequence[str],
    runs: int,
    size: Size,
    tell: Tell,
    keep: Callable[[Results], None],
) -> Results:
    """Measure all systems `runs` times and return the figures.

    `tell` gets what is being done, `keep` what there is so far: a later failure shall not cost it.
    """
    results = Results(now(), machine(), services.versions() | versions(list(systems)), asdict(size))
    for number in range(1, runs + 1):
        for system in systems:
            label = f"run {number} of {runs}: {system.title}"
            results.runs.append(Run(system.name, number, _visit(services, system, measures, size, tell, label)))
            keep(results)
    return results


def steps(systems: Sequence[System], measures: Sequence[str], runs: int) -> int:
    """Return how often `compare` tells what it does."""
    return runs * sum(len(list(_step_names(system, measures))) for system in systems)


def _step_names(system: System, measures: Sequence[str]) -> Iterator[str]:
    yield "sending"
    yield "running what is queued"
    if "round-trips" in measures and system.tells_ends:
        yield "round trips"
        yield "round trips at half load"
    if "sleeping" in measures and system.runs_tasks:
        yield "1 ms tasks"
        if system.slots:
            yield "10 ms tasks"


def _visit(
    services: Services, system: System, measures: Sequence[str], size: Size, tell: Tell, label: str
) -> dict[str, float]:
    with fresh_place(services, system) as place, Driver(system, place) as driver:
        visit = Visit(system, services, place, driver, size)
        _measure_noop(visit, measures, lambda what: tell(f"{label}: {what}"))
        if "sleeping" in measures and system.runs_tasks:
            _measure_sleeping(visit, lambda what: tell(f"{label}: {what}"))
        if "footprint" in measures:
            measure_import(visit)
        return visit.figures


def _measure_noop(visit: Visit, measures: Sequence[str], tell: Tell) -> None:
    with visit.starts(visit.size.tasks) as starts:
        tell("sending")
        measure_sending(visit, starts)
        if "footprint" in measures:
            measure_client_memory(visit)
        tell("running what is queued")
        with visit.worker(starts) as worker:
            measure_draining(visit, worker)
            if "footprint" in measures and visit.system.runs_tasks:
                measure_worker_memory(visit, worker)
            if "round-trips" in measures and visit.system.tells_ends:
                measure_reading(visit)
                tell("round trips")
                measure_idle(visit, starts)
                tell("round trips at half load")
                measure_half_load(visit, starts)


def _measure_sleeping(visit: Visit, tell: Tell) -> None:
    tell("1 ms tasks")
    rate = measure_sleeping(visit, "sleep_1_ms", visit.size.sleeping_tasks)
    visit.figures[figures.DRAIN_1_MS.key] = rate
    if visit.system.slots:
        tell("10 ms tasks")
        most = visit.size.processes * visit.system.slots / 0.01
        rate = measure_sleeping(visit, "sleep_10_ms", int(most * visit.size.slots_seconds))
        visit.figures[figures.SLOTS_USED.key] = 100 * rate / most
