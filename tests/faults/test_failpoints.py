"""A worker's process dies at each single step of a task's way through it."""

from __future__ import annotations

from pathlib import Path

import pytest

from limetask import Settings
from tests.faults.conftest import OpenLedger, StartWorker
from tests.faults.form import in_form
from tests.faults.ledger import Verdict, now
from tests.faults.load import EARLY, LATE, Load
from tests.waiting import eventually

_DEATHS = in_form(1, 4)  # fewer than max_deliveries: even a task that is hit each time has one more start
_SLOTS = 4
_BODY_SECONDS = 0.005
# Bodies so short are started ahead for 0.05 s (`limetask_worker.pace`). On a machine that is busy with other things all
# of these may have run before their process tells of the first.
_MOST_UNTOLD = _SLOTS + int(_SLOTS * 0.05 / _BODY_SECONDS)

# Where a death costs nobody a body that has begun: for early tasks up to the body, for late ones and for the recorder
# anywhere.
UP_TO_THE_BODY = [
    "before STARTED is published",
    "between STARTED and its confirm",
    "between STARTED's confirm and the body",
]
FROM_THE_BODY = [
    "between the body and its ack",
    "between the body and the event",
    "between the event and its confirm",
]
AFTER_THE_EVENT = ["between the event's confirm and the late ack"]
IN_THE_RECORDER = ["before the recorder's commit", "between the recorder's commit and its ack"]


def die_at(
    step: str,
    tasks: list[str],
    settings: Settings,
    open_ledger: OpenLedger,
    employ: StartWorker,
    tmp_path: Path,
    slots: int = _SLOTS,
) -> Verdict:
    """Have processes die at a step under load, and return what came of the tasks."""
    ledger = open_ledger(settings)
    tokens = tmp_path / "tokens"
    tokens.mkdir()
    employ(
        ledger,
        *("--processes", "1", "--slots", str(slots)),
        LIMETASK_TEST_FAILPOINT=step,
        LIMETASK_TEST_TOKENS=str(tokens),
    )
    with Load(ledger.book, in_form(60, 600), in_form(60, 100), tasks, seconds=_BODY_SECONDS) as load:
        for death in range(_DEATHS):
            load.wait_for_share((death + 1) / (_DEATHS + 2))
            (tokens / str(death)).touch()
            eventually(lambda: ledger.book.send(tasks[0], 0.0) and not any(tokens.iterdir()), 30, f"a death {step}")
            fault_ended = now()
            ledger.wait_for_recovery(fault_ended, tasks[0])
    kind = "early and late" if len(tasks) > 1 else "late" if "late" in tasks[0] else "early"
    return ledger.check(f"SIGKILL {step}, {kind} tasks", fault_ended)


@pytest.mark.parametrize("step", UP_TO_THE_BODY)
def test_an_early_task_that_had_not_begun_is_not_failed(
    step: str, quick_settings: Settings, open_ledger: OpenLedger, employ: StartWorker, tmp_path: Path
) -> None:
    """A death before the body: the task is run after all. Only those that had begun beside it are lost."""
    verdict = die_at(step, [EARLY], quick_settings, open_ledger, employ, tmp_path)
    assert not verdict.failed_unbegun
    assert set(verdict.failures) <= {"WorkerLost"}
    assert sum(verdict.failures.values()) <= _DEATHS * _MOST_UNTOLD


@pytest.mark.parametrize("step", FROM_THE_BODY)
def test_an_early_task_that_had_ended_untold_is_lost_or_told(
    step: str, quick_settings: Settings, open_ledger: OpenLedger, employ: StartWorker, tmp_path: Path
) -> None:
    """A death after the body: FAILURE (WorkerLost), or SUCCESS if its event had arrived. It is not run again."""
    verdict = die_at(step, [EARLY], quick_settings, open_ledger, employ, tmp_path)
    assert set(verdict.failures) <= {"WorkerLost"}
    assert sum(verdict.failures.values()) <= _DEATHS * _MOST_UNTOLD


@pytest.mark.parametrize("task", ["faulty.mixed.early_within_limit", "faulty.mixed.late_within_limit"])
def test_an_end_that_its_process_knew_is_told_by_its_supervisor(
    task: str, quick_settings: Settings, open_ledger: OpenLedger, employ: StartWorker, tmp_path: Path
) -> None:
    """A death with the event unpublished: SUCCESS, and nothing else before that.

    With a time limit none is started ahead: no other body runs at that moment.
    """
    verdict = die_at("between the body and the event", [task], quick_settings, open_ledger, employ, tmp_path, slots=1)
    assert not verdict.failures
    assert verdict.duplicated_late == 0


@pytest.mark.parametrize("step", [*UP_TO_THE_BODY, *FROM_THE_BODY[1:], *AFTER_THE_EVENT])
def test_a_late_task_succeeds_wherever_its_process_dies(
    step: str, quick_settings: Settings, open_ledger: OpenLedger, employ: StartWorker, tmp_path: Path
) -> None:
    """A death at any step: the broker delivers the task again, and in the end it succeeds."""
    verdict = die_at(step, [LATE], quick_settings, open_ledger, employ, tmp_path)
    assert not verdict.failures


@pytest.mark.parametrize("step", IN_THE_RECORDER)
def test_no_record_is_lost_with_the_recorder(
    step: str, quick_settings: Settings, open_ledger: OpenLedger, employ: StartWorker, tmp_path: Path
) -> None:
    """A death of the recorder before or after its commit: another records the batch, and no task notices."""
    verdict = die_at(step, [EARLY, LATE], quick_settings, open_ledger, employ, tmp_path)
    assert not verdict.failures
    assert not verdict.duplicated_late
