"""What limetask is meant to reach, and whether it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import figures
from benchmarks.figures import Figure
from benchmarks.results import Results

_OURS = "limetask-postgresql"

_Measured = Callable[[Results], float | None]


@dataclass(frozen=True)
class Target:
    """One thing that is wanted. `measured` gives the number, None if it was not measured."""

    text: str
    wanted: float
    unit: str
    measured: _Measured
    at_most: bool = False

    @property
    def limit(self) -> str:
        """Return what is wanted, as the table shows it."""
        return f"{'at most' if self.at_most else 'at least'} {self.wanted:g}{self.unit}"

    def is_met(self, value: float) -> bool:
        """Return True if the number is good enough."""
        return value <= self.wanted if self.at_most else value >= self.wanted


def _median(figure: Figure, system: str = _OURS) -> _Measured:
    return lambda results: results.median(system, figure.key)


def _ratio(figure: Figure, other: str, system: str = _OURS) -> _Measured:
    """How many times another system's median ours is."""

    def measured(results: Results) -> float | None:
        ours = results.median(system, figure.key)
        theirs = results.median(other, figure.key)
        return None if ours is None or not theirs else ours / theirs

    return measured


def _percent(measured: _Measured) -> _Measured:
    def percent(results: Results) -> float | None:
        share = measured(results)
        return None if share is None else 100 * share

    return percent


def _send_over_raw(results: Results) -> float | None:
    """How many times as long as the raw confirm round trip a send takes."""
    return _ratio(figures.SEND_EACH, _OURS, "raw")(results)


_READABLE = figures.DRAIN_READABLE

TARGETS = (
    Target("drain with ends readable: Dramatiq with results in Redis", 2.5, " x", _ratio(_READABLE, "dramatiq-redis")),
    Target("drain with ends readable: TaskIQ with results in Redis", 3.3, " x", _ratio(_READABLE, "taskiq-redis")),
    Target(
        "drain with ends readable: Celery with results in PostgreSQL", 25, " x", _ratio(_READABLE, "celery-postgresql")
    ),
    Target("drain with ends readable: share of the raw limit", 75, " %", _percent(_ratio(_READABLE, "raw"))),
    Target("bodies of 10 ms, 8 slots a process: share of slots / duration", 95, " %", _median(figures.SLOTS_USED)),
    Target(
        "drain with ends readable: SQLite beside PostgreSQL",
        1,
        " x",
        _ratio(_READABLE, _OURS, "limetask-sqlite"),
    ),
    Target("processor time of the worker a no-op task", 85, " µs", _median(figures.CPU_WORKER), at_most=True),
    Target("processor time of the recorder a task", 60, " µs", _median(figures.CPU_RECORDER), at_most=True),
    Target("`send_task` beside the raw confirm round trip", 1.25, " x", _send_over_raw, at_most=True),
    Target("`send_tasks` from one thread", 15_000, "/s", _median(figures.SEND_MANY)),
    Target("round trip idle, p50", 2.5, " ms", _median(figures.IDLE_P50), at_most=True),
    Target("round trip idle, p99", 8, " ms", _median(figures.IDLE_P99), at_most=True),
    Target("memory of a task process", 60, " MiB", _median(figures.MEMORY_PROCESS), at_most=True),
    Target("memory of a client above bare Python", 45, " MiB", _median(figures.MEMORY_CLIENT), at_most=True),
    Target("`import limetask`", 150, " ms", _median(figures.IMPORT), at_most=True),
)
