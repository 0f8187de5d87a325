"""When a recorded start that its living worker does not have in hand counts as lost."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest

from limetask.message import Started
from limetask_worker.missed_ends import MissedEnds
from limetask_worker.vital_signs import VitalSigns

TIMEOUT = 60.0
INTERVAL = 10.0


@pytest.fixture
def signs() -> VitalSigns:
    """Vital signs of a recorder that has just begun to listen."""
    signs = VitalSigns(TIMEOUT)
    signs.hear_echo(1000.0)
    return signs


@pytest.fixture
def missed(signs: VitalSigns) -> MissedEnds:
    """Nothing was missed so far."""
    return MissedEnds(signs, TIMEOUT)


def started() -> Started:
    now = datetime.now(UTC)
    return Started(str(uuid.uuid4()), "pkg.tasks.add", "shop", 1, "one", False, now, now)


def listen(signs: VitalSigns, missed: MissedEnds, seconds: float, *missing: Started) -> list[list[Started]]:
    """Have echoes arrive for a while, and worker "one" tell each time what it has in hand; return what is lost then."""
    lost = []
    until = signs.now + seconds
    while signs.now < until:
        signs.hear_echo(signs.now + INTERVAL)
        lost.append(missed.note("one", missing))
    return lost


def test_what_is_missing_for_the_whole_time_is_lost(signs: VitalSigns, missed: MissedEnds) -> None:
    """It is told as such from then on, and not before."""
    one, two = started(), started()
    assert listen(signs, missed, TIMEOUT, one) == [[]] * 6
    assert listen(signs, missed, 2 * INTERVAL, one, two) == [[], [one]]
    assert listen(signs, missed, INTERVAL, one, two) == [[one]]


def test_what_was_missing_only_in_between_is_not_lost(signs: VitalSigns, missed: MissedEnds) -> None:
    """As when its record, or its worker's list, came late."""
    one = started()
    for _ in range(3):
        assert listen(signs, missed, TIMEOUT, one) == [[]] * 6
        assert listen(signs, missed, INTERVAL) == [[]]


def test_a_pause_in_the_listening_gives_it_the_whole_time_again(signs: VitalSigns, missed: MissedEnds) -> None:
    """The record of its end may have gone to another recorder meanwhile, or be on its way back to the queue."""
    one = started()
    listen(signs, missed, TIMEOUT, one)
    signs.hear_echo(signs.now + TIMEOUT)
    assert listen(signs, missed, TIMEOUT, one) == [[]] * 6
    assert listen(signs, missed, INTERVAL, one) == [[one]]


def test_workers_are_told_apart_and_forgotten(signs: VitalSigns, missed: MissedEnds) -> None:
    """One worker's list says nothing of another's tasks; a worker that is gone leaves nothing behind."""
    one, two = started(), started()
    missed.note("two", [two])
    listen(signs, missed, TIMEOUT + INTERVAL, one)
    assert missed.note("two", [two]) == [two]
    missed.forget("one")
    assert missed.note("one", [one]) == []
