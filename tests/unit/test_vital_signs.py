"""Who counts as silent: only time in which signs of life could be heard counts."""

from __future__ import annotations

import pytest

from limetask_worker.vital_signs import VitalSigns

TIMEOUT = 60.0
INTERVAL = 10.0
# The recorder asks for all workers that run something, after each echo.
RUNNING = ["one", "two", "never heard"]


@pytest.fixture
def signs() -> VitalSigns:
    """Vital signs that nobody has given yet."""
    return VitalSigns(TIMEOUT)


def echoes(signs: VitalSigns, since: float, seconds: float, *workers: str) -> float:
    """Have echoes arrive for a while, and these workers' signs of life; return when the last one was sent."""
    moment = since
    while moment < since + seconds:
        signs.hear(workers)
        moment += INTERVAL
        signs.hear_echo(moment)
        signs.silent(RUNNING)
    return moment


def test_a_worker_that_gives_no_sign_for_the_timeout_is_silent(signs: VitalSigns) -> None:
    """It falls silent, while another goes on."""
    moment = echoes(signs, 1000.0, 100.0, "one", "two")
    assert signs.silent(["one", "two"]) == []
    moment = echoes(signs, moment, TIMEOUT, "two")
    assert signs.silent(["one", "two"]) == []
    echoes(signs, moment, INTERVAL, "two")
    assert signs.silent(["one", "two"]) == ["one"]
    assert signs.is_silent("one")


def test_who_hears_nothing_presumes_nothing(signs: VitalSigns) -> None:
    """A recorder that stands by gets no message at all, not its own either."""
    assert signs.silent(["one"]) == []
    echoes(signs, 1000.0, 100.0, "one")
    assert signs.silent(["one"]) == []


def test_a_pause_gives_everybody_the_whole_time_again(signs: VitalSigns) -> None:
    """As when another recorder was active, or the broker was away."""
    moment = echoes(signs, 1000.0, 100.0, "one")
    moment = echoes(signs, moment + 3600.0, TIMEOUT)
    assert signs.silent(["one", "never heard"]) == []
    echoes(signs, moment, 2 * INTERVAL)
    assert signs.silent(["one", "never heard"]) == ["one", "never heard"]


def test_a_worker_that_was_never_heard_has_the_whole_time_before_it(signs: VitalSigns) -> None:
    """Who stood still may find the starts of a young worker in the store, and its signs further back in the queue."""
    moment = echoes(signs, 1000.0, 10 * TIMEOUT, "one")
    assert signs.silent(["one", "young"]) == []
    moment = echoes(signs, moment, TIMEOUT, "one")
    assert signs.silent(["one", "young"]) == []
    echoes(signs, moment, INTERVAL, "one")
    assert signs.silent(["one", "young"]) == ["young"]
    assert signs.is_silent("young")


def test_a_silent_worker_stays_silent(signs: VitalSigns) -> None:
    """Whoever asks late is told so at once, for an hour; then it is unknown, and has its whole time again."""
    moment = echoes(signs, 1000.0, 100.0, "gone", "one")
    moment = echoes(signs, moment, 3600.0, "one")
    assert signs.is_silent("gone")
    moment = echoes(signs, moment, 2 * TIMEOUT, "one")
    assert not signs.is_silent("gone")
    echoes(signs, moment, TIMEOUT + INTERVAL, "one")
    assert signs.is_silent("gone")


def test_some_lost_echoes_make_no_difference(signs: VitalSigns) -> None:
    """One or two that could not be published do not keep a dead worker's tasks waiting."""
    for moment in (1000.0, 1030.0, 1060.0, 1090.0):
        signs.hear_echo(moment)
        silent = signs.silent(["one"])
    assert silent == ["one"]


def test_an_echo_that_is_delivered_again_changes_nothing(signs: VitalSigns) -> None:
    """The broker may deliver anything twice."""
    echoes(signs, 1000.0, 30.0, "one")
    signs.hear_echo(1010.0)
    assert signs.silent(["one"]) == []
    signs.hear_echo(1030.0 + TIMEOUT / 2)
    signs.hear_echo(1030.0 + TIMEOUT)
    assert signs.silent(["one"]) == []
    signs.hear_echo(1030.0 + TIMEOUT + INTERVAL)
    assert signs.silent(["one"]) == ["one"]


def test_a_sign_that_has_just_come_counts_at_once(signs: VitalSigns) -> None:
    """Whoever comes back before the next echo is not silent."""
    echoes(signs, 1000.0, 2 * TIMEOUT)
    assert signs.is_silent("one")
    signs.hear(["one"])
    assert not signs.is_silent("one")
    assert signs.silent(["one"]) == []
