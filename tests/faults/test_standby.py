"""Two workers with a recorder each, of which one stands by: neither may take a task that runs for a lost one.

With all defaults but a short time after which a silent host counts as dead, and bodies that take longer.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest

from limetask import Settings
from tests.faults.conftest import OpenLedger, StartWorker
from tests.faults.form import in_form
from tests.faults.ledger import Ledger, Verdict, now
from tests.faults.test_stops import frozen
from tests.waiting import eventually
from tests.worker import Worker

_WORKER_TIMEOUT = 4.0
_BODY_SECONDS = 2 * _WORKER_TIMEOUT
_ROUNDS = in_form(1, 5)
_OF_EACH = 3
_RECORDER = "limetask_worker.recorder"
_MINUTES = os.environ.get("LIMETASK_STANDBY_MINUTES")
_LONGEST_BODY_SECONDS = 90.0
_PAUSE_SECONDS = 2.0  # between two of these: most of the slots are busy
_TASKS = [f"faulty.mixed.{kind}{form}" for kind in ("early", "late") for form in ("", "_async", "_within_limit")]


@dataclass(frozen=True)
class Pair:
    """The worker whose recorder is at work, since it came first, and the one whose recorder stands by."""

    active: Worker
    standby: Worker


def nothing(_pair: Pair) -> None:
    """Both are left alone."""


def stop_a_supervisor_for_a_moment(pair: Pair) -> None:
    """One supervisor gives no sign of life for a part of the time after which it would count as dead."""
    with frozen([pair.standby.process.pid]):
        time.sleep(_WORKER_TIMEOUT / 2)


def stop_both_supervisors(pair: Pair) -> None:
    """Nobody gives a sign of life for longer than that time: whoever hears nobody knows nothing of anybody."""
    with frozen([pair.active.process.pid, pair.standby.process.pid]):
        time.sleep(1.5 * _WORKER_TIMEOUT)


def stop_the_active_recorder(pair: Pair) -> None:
    """It stands still for longer than that time, and what it has not heard meanwhile waits for it."""
    with frozen(pair.active.child_pids(_RECORDER)):
        time.sleep(1.5 * _WORKER_TIMEOUT)


def kill_the_active_recorder(pair: Pair) -> None:
    """The one that has stood by until now is at work from now on."""
    [recorder] = eventually(lambda: pair.active.child_pids(_RECORDER), what="the recorder, or the one after it")
    os.kill(recorder, signal.SIGKILL)
    eventually(lambda: recorder not in pair.active.child_pids(_RECORDER), what="the end of a recorder")


_HAPPENINGS: dict[str, Callable[[Pair], None]] = {
    "nothing happens": nothing,
    "a supervisor is stopped for a moment": stop_a_supervisor_for_a_moment,
    "all supervisors are stopped": stop_both_supervisors,
    "the active recorder is stopped": stop_the_active_recorder,
    "the active recorder is killed": kill_the_active_recorder,
}
_IN_SHORT_FORM = ["nothing happens", "all supervisors are stopped", "the active recorder is stopped"]


def employ_two(ledger: Ledger, employ: StartWorker) -> Pair:
    return Pair(*(employ(ledger, "--processes", "1", "--slots", "16") for _ in range(2)))


def run_long_bodies(ledger: Ledger, tasks: Sequence[str]) -> None:
    """Send tasks that take longer than a silent host has, and return when all have begun."""
    known = len(ledger.traces())
    for name in tasks:
        assert ledger.book.send(name, _BODY_SECONDS) is not None
    ledger.wait_for_starts(known + len(tasks))


def assert_all_told_of_success(verdict: Verdict, ledger: Ledger) -> None:
    """Nobody may have heard of a failure, not even for a moment."""
    assert not verdict.failures
    assert not [event.fields for event in ledger.events.all() if event.status == "FAILURE"]


@pytest.mark.parametrize("happening", in_form(_IN_SHORT_FORM, [*_HAPPENINGS]))
def test_long_bodies_beside_a_recorder_that_stands_by(
    happening: str, settings: Settings, open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """No task that is running is taken for lost, and each has run once."""
    ledger = open_ledger(replace(settings, worker_timeout=_WORKER_TIMEOUT))
    pair = employ_two(ledger, employ)
    for _ in range(_ROUNDS):
        run_long_bodies(ledger, _TASKS * _OF_EACH)
        _HAPPENINGS[happening](pair)
        fault_ended = now()
    verdict = ledger.check(f"two recorders: {happening}", fault_ended)
    assert_all_told_of_success(verdict, ledger)
    assert not verdict.duplicated_late


@pytest.mark.skipif(_MINUTES is None, reason="takes long: scripts/faults --standby 30")
@pytest.mark.timeout(60 * float(_MINUTES or 0) + 600)
def test_bodies_of_up_to_a_minute_and_a_half_for_a_long_time(
    settings: Settings, open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """With all defaults, and no fault at all."""
    ledger = open_ledger(settings)
    employ_two(ledger, employ)
    begun = time.monotonic()
    while (minutes := (time.monotonic() - begun) / 60) < float(_MINUTES or 0):
        ledger.book.send(random.choice(_TASKS), random.uniform(0.0, _LONGEST_BODY_SECONDS))
        time.sleep(_PAUSE_SECONDS)
    eventually(lambda: len(ledger.events.by_task) == len(ledger.book.confirmed), 2 * _LONGEST_BODY_SECONDS, "all ends")
    verdict = ledger.check(f"two recorders: {minutes:.0f} minutes with bodies of up to 90 s", now())
    assert_all_told_of_success(verdict, ledger)
    assert not verdict.duplicated_late
