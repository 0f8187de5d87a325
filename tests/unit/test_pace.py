"""How many tasks are started ahead of a free slot, by how long their predecessors took."""

from __future__ import annotations

import pytest

from limetask_worker.pace import Pace

SLOTS = 8


def paced(*seconds: float) -> Pace:
    pace = Pace(SLOTS)
    for duration in seconds:
        pace.note(duration)
    return pace


def test_nothing_is_started_ahead_before_anything_is_known() -> None:
    """The first tasks may be long ones."""
    assert paced().ahead == 0
    assert not paced().is_quick


@pytest.mark.parametrize(("seconds", "ahead"), [(0.0, 120), (0.0001, 120), (0.01, 40), (0.1, 4), (0.5, 0), (60.0, 0)])
def test_what_is_ahead_waits_for_a_twentieth_of_a_second(seconds: float, ahead: int) -> None:
    """Short bodies let many be started ahead, long ones none."""
    assert paced(seconds).ahead == ahead


def test_it_follows_the_tasks() -> None:
    """After a change of the bodies' length the pace is the new one."""
    pace = paced(*[0.001] * 50, *[2.0] * 50)
    assert (pace.ahead, pace.is_quick) == (0, False)
    for _ in range(100):
        pace.note(0.001)
    assert (pace.ahead, pace.is_quick) == (120, True)
