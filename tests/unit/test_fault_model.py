"""The model that the torture among the fault tests judges by, and its schedule."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import pytest

from tests.faults.model import Deeds, Life, Look, judge
from tests.faults.schedule import orders, schedule

SUPERVISOR, PROCESS = 100, 101
WORKER = f"a.host.{SUPERVISOR}.a1b2c3.1"
EARLY, LATE = Life(is_late=False, begun=[(1.0, PROCESS)]), Life(is_late=True, begun=[(1.0, PROCESS)])
SILENT = "no sign of life from its worker for 10 s"
BEGUN_TOO_OFTEN = Look(30.0, "FAILURE", 1, "BegunTooOftenError", "it was started 5 times", WORKER)
KILLED = "the worker process was killed by SIGKILL (signal 9)"


def look(at: float, status: str, error_type: str = "", message: str = "", attempt: int = 1) -> Look:
    return Look(at, status, attempt, error_type, message, WORKER)


def lost(at: float, message: str) -> Look:
    return look(at, "FAILURE", "WorkerLost", message)


def late_life(*begun: float) -> Life:
    return Life(is_late=True, begun=[(moment, PROCESS) for moment in begun])


def deeds() -> Deeds:
    return Deeds(worker_timeout=10.0, max_deliveries=5)


def wrong(life: Life, seen: list[Look], done: Deeds | None = None, events: list[Look] | None = None) -> list[str]:
    return judge({"x": life}, {"x": seen}, {"x": events or []}, done or deeds()).wrong


@pytest.mark.parametrize("end", ["SUCCESS", "STARTED"])
def test_forward_is_right(end: str) -> None:
    assert wrong(EARLY, [look(0, "PENDING"), look(1, "STARTED"), look(2, end)]) == []
    assert wrong(EARLY, [look(0, "PENDING"), look(2, end)]) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [("SUCCESS", "STARTED"), ("SUCCESS", "FAILURE"), ("SUCCESS", "PENDING"), ("STARTED", "PENDING")],
)
def test_backward_is_wrong(before: str, after: str) -> None:
    """A start is only taken back if its body has not begun."""
    assert wrong(LATE, [look(2, before), look(3, after)])


def test_an_attempt_does_not_go_back() -> None:
    assert wrong(LATE, [look(1, "STARTED", attempt=1), look(2, "PENDING", attempt=2)]) == []
    assert wrong(LATE, [look(1, "STARTED", attempt=2), look(2, "SUCCESS", attempt=1)])


def test_a_start_whose_body_has_not_begun_is_taken_back_and_counted() -> None:
    seen = [look(2, "STARTED"), look(3, "PENDING"), look(4, "STARTED")]
    for life in (Life(is_late=False), Life(is_late=False, begun=[(4.0, PROCESS)])):
        judged = judge({"x": life}, {"x": seen}, {}, deeds())
        assert (judged.wrong, judged.counted["starts taken back"]) == ([], 1)


def test_a_loss_needs_the_death_of_the_process_that_began() -> None:
    done = deeds()
    assert wrong(EARLY, [lost(3, KILLED)], done)
    done.killed[SUPERVISOR] = 2.0
    assert wrong(EARLY, [lost(3, KILLED)], done)
    done.killed[PROCESS] = 2.0
    assert wrong(EARLY, [lost(3, KILLED)], done) == []


def test_a_loss_that_only_an_event_tells_of_needs_a_cause_too() -> None:
    assert wrong(EARLY, [look(1, "STARTED"), look(9, "SUCCESS")], events=[lost(3, KILLED)])


def test_a_corrected_loss_is_counted() -> None:
    done = deeds()
    done.stops.append((SUPERVISOR, 2.0, 16.0))
    seen = {"x": [look(1, "STARTED"), lost(13, SILENT), look(17, "SUCCESS")]}
    judged = judge({"x": EARLY}, seen, {}, done)
    assert (judged.wrong, judged.counted["presumed losses corrected"]) == ([], 1)


def test_a_death_that_the_real_end_contradicts_is_wrong() -> None:
    """Whatever tells of either: a status or an event."""
    done = deeds()
    done.killed[PROCESS] = 2.0
    assert wrong(EARLY, [look(1, "STARTED"), lost(3, KILLED)], done) == []
    assert wrong(EARLY, [look(1, "STARTED"), lost(3, KILLED), look(4, "SUCCESS")], done)
    assert wrong(EARLY, [look(1, "STARTED"), look(4, "SUCCESS")], done, events=[lost(3, KILLED)])


@pytest.mark.parametrize(
    ("stops", "at", "right"),
    [
        ([], 13.0, False),
        ([(2.0, 6.0)], 13.0, False),
        ([(2.0, 16.0)], 13.0, True),
        ([(2.0, 16.0)], 5.0, False),
        ([(2.0, 16.0)], 30.0, False),
        ([(2.0, 6.0), (7.0, 11.0)], 12.0, True),
        ([(2.0, 6.0), (9.0, 13.0)], 14.0, False),
    ],
)
def test_silence_must_have_been_long_enough(stops: list[tuple[float, float]], at: float, right: bool) -> None:
    done = deeds()
    done.stops += [(SUPERVISOR, begin, end) for begin, end in stops]
    assert (wrong(EARLY, [lost(at, SILENT)], done) == []) is right


def test_a_killed_supervisor_is_silent_for_ever() -> None:
    done = deeds()
    done.killed[SUPERVISOR] = 2.0
    assert wrong(EARLY, [lost(60, SILENT)], done) == []
    assert wrong(EARLY, [lost(3, SILENT)], done)


def test_no_other_failure_is_right() -> None:
    done = deeds()
    done.killed |= {SUPERVISOR: 2.0, PROCESS: 2.0}
    assert wrong(EARLY, [look(3, "FAILURE", "TimeLimitExceeded", "it had not ended")], done)
    assert wrong(LATE, [lost(3, KILLED)], done)


def test_a_late_task_may_fail_after_its_last_delivery() -> None:
    assert wrong(LATE, [BEGUN_TOO_OFTEN])
    assert wrong(late_life(0, 1, 2, 3, 4), [BEGUN_TOO_OFTEN]) == []


@pytest.mark.parametrize(
    ("killed", "at", "is_right"), [(SUPERVISOR, 11.0, True), (SUPERVISOR, 9.0, False), (PROCESS, 11.0, False)]
)
def test_a_start_counts_if_nobody_is_left_who_knows_whether_its_body_began(
    killed: int, at: float, *, is_right: bool
) -> None:
    done = deeds()
    done.killed[killed] = at
    seen = [replace(look(moment, "STARTED"), started_at=moment) for moment in (2.0, 10.0)]
    assert (wrong(late_life(2, 3, 4, 5), [*seen, BEGUN_TOO_OFTEN], done) == []) == is_right
    assert wrong(late_life(2, 3, 4, 11), [*seen, BEGUN_TOO_OFTEN], done)


def test_a_schedule_is_that_of_its_seed() -> None:
    assert schedule(7, 60, 3, 10.0) == schedule(7, 60, 3, 10.0)
    assert schedule(7, 60, 3, 10.0) != schedule(8, 60, 3, 10.0)
    assert list(islice(orders(7, ["a", "b"]), 20)) == list(islice(orders(7, ["a", "b"]), 20))


def test_a_long_schedule_has_everything_in_it() -> None:
    done = schedule(1, 600, 3, 10.0)
    assert [deed.at for deed in done] == sorted(deed.at for deed in done)
    assert done[-1].at < 600
    assert {deed.daemon for deed in done} == {0, 1, 2}
    assert {(deed.act, deed.target) for deed in done} == {
        (act, target) for act in ("STOP", "KILL") for target in ("supervisor", "recorder", "task process", "everything")
    }
    assert not [deed for deed in done if 4.0 < deed.seconds < 13.0]
    assert max(order.seconds for order in islice(orders(1, ["a"]), 1000)) > 9.0
