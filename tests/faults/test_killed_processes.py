"""Processes of a worker are killed while they are at work."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import psutil

from limetask import Settings
from limetask_worker.marks import Marks
from tests.faults.conftest import OpenLedger, StartWorker
from tests.faults.form import in_form
from tests.faults.ledger import Ledger, now
from tests.faults.load import EARLY, EARLY_KINDS, LATE, LATE_KINDS, Load
from tests.faults.nodes import Node
from tests.waiting import eventually
from tests.worker import Worker

_KILLS = in_form(2, 8)
_BODY_SECONDS = 0.04
_WORKER_LOST_SECONDS = 30.0  # of silence it would take the worker's timeout, twice as long


def kill_a_process_in_a_body(worker: Worker, ledger: Ledger, task_name: str) -> int:
    """Kill the task process in which a body has just begun, and return its id.

    On a busy machine the load may be over by then, and a process be started anew for long: so this sends tasks as well.
    """
    known = len(ledger.traces())

    def begun() -> list[int]:
        ledger.book.send(task_name, _BODY_SECONDS)
        children = task_processes_of(worker)
        return [pid for _, pid in ledger.traces()[known:] if pid in children]

    victim = eventually(begun, 60, "a new body")[-1]
    os.kill(victim, signal.SIGKILL)
    return victim


def task_processes_of(worker: Worker) -> list[int]:
    """Their ids; none while one is dying just now."""
    try:
        return worker.child_pids()
    except psutil.NoSuchProcess:
        return []


def test_an_early_task_whose_process_is_killed_fails_and_is_not_run_again(
    quick_settings: Settings, open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """SIGKILL in the body, several times: what ran is FAILURE (WorkerLost) soon, all else succeeds."""
    ledger = open_ledger(quick_settings)
    worker = employ(ledger, "--processes", "2", "--slots", "4")
    killed_at: dict[int, float] = {}
    with Load(ledger.book, in_form(200, 2000), in_form(80, 120), EARLY_KINDS, seconds=_BODY_SECONDS) as load:
        for kill in range(_KILLS):
            load.wait_for_share((kill + 1) / (_KILLS + 2))
            victim = kill_a_process_in_a_body(worker, ledger, EARLY)
            killed_at[victim] = now()
    verdict = ledger.check("SIGKILL of a task process in an early body", max(killed_at.values()))
    assert set(verdict.failures) == {"WorkerLost"}
    assert _KILLS <= sum(verdict.failures.values()) <= _KILLS * 4 * 2
    assert slowest_report(ledger, killed_at) < _WORKER_LOST_SECONDS


def slowest_report(ledger: Ledger, killed_at: dict[int, float]) -> float:
    """The longest time from a process's death to the event of a task that was lost with it."""
    process_of = dict(ledger.traces())
    numbers = {sent.task_id: sent.number for sent in ledger.book.confirmed}
    lost = [event for event in ledger.events.all() if event.error_type == "WorkerLost"]
    begun = [event for event in lost if numbers[event.fields["task_id"]] in process_of]
    return max(event.arrived - killed_at[process_of[numbers[event.fields["task_id"]]]] for event in begun)


def test_a_late_task_whose_process_is_killed_is_run_again_and_succeeds(
    quick_settings: Settings, open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """SIGKILL in the body, several times: every late task succeeds, some after a second start."""
    ledger = open_ledger(quick_settings)
    # So often that no task which is hit again and again is taken for a poisonous one.
    worker = employ(ledger, "--processes", "2", "--slots", "4", LIMETASK_MAX_DELIVERIES=str(_KILLS + 1))
    with Load(ledger.book, in_form(200, 2000), in_form(80, 120), LATE_KINDS, seconds=_BODY_SECONDS) as load:
        for kill in range(_KILLS):
            load.wait_for_share((kill + 1) / (_KILLS + 2))
            kill_a_process_in_a_body(worker, ledger, LATE)
            fault_ended = now()
    verdict = ledger.check("SIGKILL of a task process in a late body", fault_ended)
    assert not verdict.failures
    assert verdict.duplicated_late >= 1


def test_ends_that_wait_for_the_broker_outlive_their_process(
    own_broker: Node, own_broker_settings: Settings, open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """Bodies end while the broker is away, and then their process is killed: its supervisor reports the ends."""
    ledger = open_ledger(own_broker_settings)
    worker = employ(ledger, "--processes", "1", "--slots", "8")
    release = ledger.book.trace.with_name("release")
    for name in ("held", "held_late") * 3:
        assert ledger.book.send(f"faulty.tasks.{name}", str(release))
    ledger.wait_for_starts(6)
    [victim] = worker.child_pids()
    own_broker.kill()
    release.touch()
    eventually(lambda: len(unconfirmed_ends_of(worker)) == 6, what="ends that wait for the broker")
    os.kill(victim, signal.SIGKILL)
    own_broker.up()
    fault_ended = now()
    verdict = ledger.check("SIGKILL of a task process whose ends wait for the broker", fault_ended)
    assert not verdict.failures
    assert verdict.duplicated_late == 0


def unconfirmed_ends_of(worker: Worker) -> list[bytes]:
    """The events that the supervisor finds in the marks of its processes."""
    ends = []
    for descriptor in Path(f"/proc/{worker.process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if "limetask-marks" in str(descriptor.readlink()):
                with descriptor.open("r+b") as memory, contextlib.closing(Marks(memory.fileno())) as marks:
                    ends += marks.ends()
    return ends


def test_no_process_goes_on_without_its_supervisor(
    quick_settings: Settings, open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """kill -9 of the supervisor under load: its children let their tasks end, stop, and leave the rest to others."""
    ledger = open_ledger(quick_settings)
    with Load(ledger.book, in_form(200, 2000), in_form(80, 120), seconds=0.04) as load:
        for kill in range(in_form(1, 4)):
            worker = employ(ledger, "--processes", "2", "--slots", "4")
            load.wait_for_share((kill + 1) / in_form(3, 6))
            kill_the_supervisor(worker)
            fault_ended = now()
        employ(ledger, "--processes", "2", "--slots", "4")
    verdict = ledger.check("SIGKILL of a supervisor", fault_ended)
    assert not verdict.failures


def kill_the_supervisor(worker: Worker) -> None:
    """Kill the supervisor alone, and return when all of its children have ended."""
    children = psutil.Process(worker.process.pid).children(recursive=True)
    assert len(children) >= 3
    worker.process.kill()
    worker.process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    for orphan in alive:
        orphan.kill()
    assert not alive, f"they outlive their supervisor: {alive}"


def test_the_tasks_of_a_host_that_dies_as_a_whole_are_not_left_started(
    quick_settings: Settings, open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """SIGKILL of all of a worker's processes at once: its early tasks become FAILURE within the worker timeout."""
    ledger = open_ledger(quick_settings)
    employ(ledger, "--processes", "1", "--slots", "4", LIMETASK_WORKER_TIMEOUT="3")
    victim = employ(ledger, "--processes", "1", "--slots", "4", LIMETASK_WORKER_TIMEOUT="3")
    with Load(ledger.book, in_form(200, 2000), in_form(80, 120), seconds=0.05) as load:
        load.wait_for_share(0.5)
        [child] = victim.child_pids()
        known = len(ledger.traces())
        eventually(lambda: child in [pid for _, pid in ledger.traces()[known:]], what="a body in the victim")
        victim.kill()
        fault_ended = now()
    verdict = ledger.check("SIGKILL of all processes of a worker, as when a host dies", fault_ended)
    assert set(verdict.failures) <= {"WorkerLost"}


def test_a_task_that_kills_its_process_each_time_is_set_aside(
    quick_settings: Settings, open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """A poisonous late task: started 5 times at most, then FAILURE with its event, and a dead letter."""
    ledger = open_ledger(quick_settings)
    employ(ledger, "--processes", "2", "--slots", "4")
    with Load(ledger.book, in_form(100, 2000), in_form(50, 150), LATE_KINDS, seconds=0.0) as load:
        load.wait_for_share(0.2)
        poison = ledger.book.send("faulty.tasks.poison")
        assert poison is not None
        sent_at = now()
    eventually(lambda: (status := ledger.status_of(poison)) is not None and status.is_completed(), 60, "its end")
    verdict = ledger.check("a task that kills its process each time", sent_at)
    assert sum(verdict.failures.values()) == 1
    assert 1 <= ledger.starts()[poison.number] <= 5
    assert poison.task_id in ledger.visible_ids()
