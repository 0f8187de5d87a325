"""How fast tasks are sent, while no worker runs: one by one, and many."""

from __future__ import annotations

from benchmarks import figures
from benchmarks.starts import Starts
from benchmarks.visit import Visit

_FIRST = 20  # they open the connection


def measure_sending(visit: Visit, starts: Starts) -> None:
    """Queue all no-op tasks."""
    for _ in range(_FIRST):
        visit.driver.send_each("noop", starts.uncounted, 1)
    one_by_one = visit.size.sent_one_by_one
    many = starts.tasks - one_by_one
    visit.figures[figures.SEND_EACH.key] = one_by_one / visit.driver.send_each("noop", 0, one_by_one)
    visit.figures[figures.SEND_MANY.key] = many / visit.driver.send_many("noop", one_by_one, many)
    visit.ends += _FIRST + starts.tasks
