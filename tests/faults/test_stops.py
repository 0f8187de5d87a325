"""Workers that are stopped, frozen, and replaced under load."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import psutil
import pytest

from limetask import Settings
from tests.faults.conftest import OpenLedger, StartWorker
from tests.faults.form import in_form
from tests.faults.ledger import now
from tests.faults.load import Load
from tests.worker import Worker

_HEARTBEAT = 2
_FREEZES = in_form(1, 5)
_DEPLOYMENTS = in_form(2, 12)


@contextmanager
def frozen(pids: list[int]) -> Iterator[None]:
    """Stop processes, and let them go on afterwards."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def all_processes_of(worker: Worker) -> list[int]:
    supervisor = psutil.Process(worker.process.pid)
    return [supervisor.pid, *(child.pid for child in supervisor.children(recursive=True))]


@pytest.mark.parametrize("what", ["a worker", "a task process"])
def test_a_worker_that_was_frozen_runs_no_early_task_again(
    what: str, quick_settings: Settings, open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """SIGSTOP past two heartbeats, so that others get its deliveries, then SIGCONT: early bodies start once."""
    ledger = open_ledger(replace(quick_settings, heartbeat=_HEARTBEAT))
    employ(ledger, "--processes", "1", "--slots", "4")
    victim = employ(ledger, "--processes", "1", "--slots", "4")
    with Load(ledger.book, in_form(250, 2000), in_form(40, 60), seconds=0.02) as load:
        for freeze in range(_FREEZES):
            load.wait_for_share((freeze + 1) / (_FREEZES + 2))
            with frozen(all_processes_of(victim) if what == "a worker" else victim.child_pids()):
                time.sleep(2.5 * _HEARTBEAT)
            fault_ended = now()
            ledger.wait_for_recovery(fault_ended)
    verdict = ledger.check(f"SIGSTOP of {what} past two heartbeats, then SIGCONT", fault_ended)
    assert not verdict.failures


def test_a_deployment_under_load_is_not_noticed(
    quick_settings: Settings, open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """New workers are started and old ones stopped, in turn: all succeed, early ones after one start."""
    ledger = open_ledger(quick_settings)
    workers = [employ(ledger, "--processes", "1", "--slots", "4") for _ in range(2)]
    with Load(ledger.book, in_form(400, 4000), in_form(60, 70), seconds=0.05) as load:
        for deployment in range(_DEPLOYMENTS):
            load.wait_for_share((deployment + 1) / (_DEPLOYMENTS + 2))
            workers.append(employ(ledger, "--processes", "1", "--slots", "4"))
            assert workers.pop(0).stop() == 0
            fault_ended = now()
            ledger.wait_for_recovery(fault_ended)
    verdict = ledger.check("deployment: workers replaced one by one", fault_ended)
    assert not verdict.failures
    assert not verdict.duplicated_late
