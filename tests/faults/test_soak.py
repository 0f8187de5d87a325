"""Half an hour of load with a fault a minute: nothing is lost, and no process takes ever more memory.

With the other tests for a few seconds only, in which no slow leak can show.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest

from limetask import Settings
from tests.faults.conftest import OpenLedger, StartWorker
from tests.faults.ledger import Event, EventLog, Ledger, now
from tests.faults.nodes import Node
from tests.faults.report import report_memory
from tests.faults.soak import Sender, Trend, Watch, sending
from tests.faults.test_stops import frozen
from tests.waiting import eventually
from tests.worker import Worker

_IS_LONG = "LIMETASK_SOAK_MINUTES" in os.environ
_SECONDS = 60 * float(os.environ.get("LIMETASK_SOAK_MINUTES", "0.3"))
_FAULT_EVERY_SECONDS = 60.0 if _IS_LONG else 4.5
_SAMPLE_EVERY_SECONDS = 5.0 if _IS_LONG else 0.5
_WARM_UP_SHARE = 1 / 6
_RECOVERY_SECONDS = 40.0

_TASKS_A_SECOND = 60
_BODY_SECONDS = 0.03
_HEARTBEAT = 4
# Between the first samples of a short run and its last ones processes still warm up.
_SHORT_GROWTH_BYTES = 32 * 1024 * 1024
# The event of a task that was sent after a fault is one of so many newest ones.
_NEWEST_EVENTS = 1000

_LASTING_PROCESSES = {
    "sender",
    "lasting worker",
    "lasting worker: recorder",
    "lasting worker: task process",
}


@dataclass
class Soak:
    """A system under load. Whatever is killed or replaced belongs to the victim; the other worker must live on."""

    broker: Node
    lasting: Worker
    victim: Worker
    watch: Watch
    another_worker: Callable[[], Worker]


def kill_a_task_process(soak: Soak) -> None:
    """SIGKILL, with what it has in hand."""
    [child] = soak.victim.child_pids()
    os.kill(child, signal.SIGKILL)


def kill_the_recorder(soak: Soak) -> None:
    """SIGKILL of the one that is at work, while the other one stands by."""
    [lasting] = soak.lasting.child_pids("limetask_worker.recorder")
    [victim] = soak.victim.child_pids("limetask_worker.recorder")
    soak.broker.ctl("eval", _close_recorder_connection_of(lasting))  # then the other one is at work
    os.kill(victim, signal.SIGKILL)


def _close_recorder_connection_of(process_id: int) -> str:
    return (
        '[rabbit_networking:close_connection(proplists:get_value(pid, Connection), "the soak") ||'
        " Connection <- rabbit_networking:connection_info_all([pid, client_properties]),"
        ' {<<"connection_name">>, _, Name} <- proplists:get_value(client_properties, Connection),'
        f' re:run(Name, "^limetask recorder .*:{process_id}$") =/= nomatch].'
    )


def cut_all_connections(soak: Soak) -> None:
    """The broker closes the connections of senders, workers and subscribers."""
    soak.broker.ctl("close_all_connections", "the soak")


def kill_the_broker(soak: Soak) -> None:
    """SIGKILL, and a start on the same data."""
    soak.broker.kill()
    soak.broker.up()


def freeze_a_task_process(soak: Soak) -> None:
    """SIGSTOP past two heartbeats, then SIGCONT: it must survive that, too."""
    with frozen(soak.lasting.child_pids()):
        time.sleep(2.5 * _HEARTBEAT)


def deploy(soak: Soak) -> None:
    """A new worker is started, and the old one gets SIGTERM."""
    replaced, soak.victim = soak.victim, soak.another_worker()
    soak.watch.follow("victim", soak.victim.process.pid)
    assert replaced.stop() == 0, replaced.log


# In turn; a short run gets as far as the third.
FAULTS: tuple[Callable[[Soak], None], ...] = (
    kill_a_task_process,
    kill_the_recorder,
    cut_all_connections,
    kill_the_broker,
    freeze_a_task_process,
    deploy,
)


def test_the_soak(
    own_broker: Node, own_broker_settings: Settings, open_ledger: OpenLedger, employ: StartWorker, tmp_path: Path
) -> None:
    """After half an hour with a fault a minute memory is flat, nothing is lost, and no early task has run twice."""
    settings = replace(own_broker_settings, heartbeat=_HEARTBEAT)
    ledger = open_ledger(settings)
    another_worker = partial(employ, ledger, "--processes", "1", "--slots", "4")
    watch = Watch(tmp_path / "samples", _SAMPLE_EVERY_SECONDS)
    soak = Soak(own_broker, another_worker(), another_worker(), watch, another_worker)
    with sending(settings, tmp_path, ledger.book.trace, _TASKS_A_SECOND, _BODY_SECONDS) as sender:
        watch.follow("sender", sender.process.pid)
        watch.follow("lasting worker", soak.lasting.process.pid)
        watch.follow("victim", soak.victim.process.pid)
        with watch:
            begun = time.monotonic()
            recoveries = break_again_and_again(soak, ledger, sender)
            ended = time.monotonic()
    sender.tell(ledger.book)
    trends = watch.trends(begun + _WARM_UP_SHARE * (ended - begun), ended)
    for trend in trends:
        report_memory(trend.process, **trend.figures())
    kept = f"{_SECONDS / 60:g} minutes of load with {len(recoveries)} faults"
    verdict = ledger.check(kept, fault_ended=0.0, recovered=max(recoveries))
    assert set(verdict.failures) <= {"WorkerLost"}
    assert_memory_is_flat(trends)


def break_again_and_again(soak: Soak, ledger: Ledger, sender: Sender) -> list[float]:
    """Do one fault after the other, each at its time; return how many seconds the recoveries took."""
    begun = time.monotonic()
    recoveries: list[float] = []
    while (pause := (len(recoveries) + 1) * _FAULT_EVERY_SECONDS) < _SECONDS:
        time.sleep(max(0.0, begun + pause - time.monotonic()))
        fault = FAULTS[len(recoveries) % len(FAULTS)]
        fault(soak)
        recoveries.append(seconds_to_recover(ledger.events, now()))
        sender.assert_at_work()
        print(f"{time.monotonic() - begun:.0f} s: {fault.__name__}, recovered after {recoveries[-1]:.2f} s")
    time.sleep(max(0.0, begun + _SECONDS - time.monotonic()))
    return recoveries


def seconds_to_recover(events: EventLog, moment: float) -> float:
    """Wait for the end of a task that was sent after a moment."""
    ended = eventually(lambda: first_end_of_what_was_sent_after(events, moment), _RECOVERY_SECONDS, "a new completion")
    return max(0.0, ended - moment)


def first_end_of_what_was_sent_after(events: EventLog, moment: float) -> float | None:
    newest = [event for told in list(events.by_task.values())[-_NEWEST_EVENTS:] for event in list(told)]
    return min((event.finished_at for event in newest if sent_at(event) > moment), default=None)


def sent_at(event: Event) -> float:
    return datetime.fromisoformat(event.fields["sent_at"]).timestamp()


def assert_memory_is_flat(trends: list[Trend]) -> None:
    """In a short run: that it was measured, and has not grown beyond all bounds."""
    assert {trend.process for trend in trends} >= _LASTING_PROCESSES
    if _IS_LONG:
        assert not [trend for trend in trends if not trend.is_flat]
    else:
        assert not [trend for trend in trends if trend.growth_bytes > _SHORT_GROWTH_BYTES]


pytestmark = pytest.mark.timeout(_SECONDS + 600)
