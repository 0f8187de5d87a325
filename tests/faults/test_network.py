"""The network between limetask and its broker fails in every way that TCP allows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from limetask import Settings, configure
from limetask.topology import Names
from tests.broker import channel_to, queue_length
from tests.faults.conftest import OpenLedger, StartWorker
from tests.faults.form import in_form
from tests.faults.ledger import now
from tests.faults.load import LATE, Load
from tests.faults.test_stops import frozen
from tests.proxy import Proxy, proxy_to
from tests.waiting import eventually
from tests.worker import Worker

_STALL_SECONDS = in_form(3.0, 8.0)
_ROUNDS = in_form(1, 6)
_CUTS = in_form(12, 40)
_HELD = 10


@pytest.fixture
def network(quick_settings: Settings) -> Iterator[tuple[Proxy, str]]:
    """A proxy in front of the broker and its URL, for senders and worker alike."""
    with proxy_to(quick_settings.broker_url) as proxied:
        yield proxied


def cut_before_answer(proxy: Proxy) -> None:
    """What was published has arrived, and its confirm is lost."""
    proxy.cut_before_answer()


def stall_towards_the_broker(proxy: Proxy) -> None:
    """The broker hears nothing more, and goes on speaking."""
    proxy.stall("broker")
    time.sleep(_STALL_SECONDS)


def stall_towards_the_client(proxy: Proxy) -> None:
    """The broker hears everything, and its answers do not arrive."""
    proxy.stall("client")
    time.sleep(_STALL_SECONDS)


def delay(proxy: Proxy) -> None:
    """Everything arrives, later."""
    proxy.delay(0.05)
    time.sleep(_STALL_SECONDS)


def truncate_towards_the_broker(proxy: Proxy) -> None:
    """The broker gets half a frame, and then nothing."""
    proxy.truncate("broker")
    time.sleep(0.3)


def truncate_towards_the_client(proxy: Proxy) -> None:
    """The client gets half a frame, and then nothing."""
    proxy.truncate("client")
    time.sleep(0.3)


FAULTS: dict[str, Callable[[Proxy], None]] = {
    "network: cut after a publish and before its confirm": cut_before_answer,
    "network: nothing arrives at the broker any more": stall_towards_the_broker,
    "network: nothing arrives from the broker any more": stall_towards_the_client,
    "network: every packet is delayed": delay,
    "network: truncated in a frame towards the broker": truncate_towards_the_broker,
    "network: truncated in a frame from the broker": truncate_towards_the_client,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_network_loses_nothing_and_repeats_no_early_task(
    fault: str,
    quick_settings: Settings,
    network: tuple[Proxy, str],
    open_ledger: OpenLedger,
    employ: StartWorker,
) -> None:
    """Under load, several times, for senders and worker: they reconnect by themselves, and no task fails."""
    proxy, url = network
    proxied = replace(quick_settings, broker_url=url, heartbeat=2)
    ledger = open_ledger(quick_settings)
    configure(proxied)
    employ(ledger, "--processes", "2", "--slots", "4", settings=proxied)
    with Load(ledger.book, in_form(200, 1200), in_form(60, 100), seconds=0.01) as load:
        for turn in range(_ROUNDS):
            load.wait_for_share((turn + 1) / (_ROUNDS + 2))
            FAULTS[fault](proxy)
            proxy.flow()
            fault_ended = now()
            ledger.wait_for_recovery(fault_ended)
    verdict = ledger.check(fault, fault_ended)
    assert not verdict.failures


def test_workers_that_lose_their_connections_in_turn_use_up_no_late_task(
    quick_settings: Settings, open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """What was handed from one to the other, and could begin nowhere, is not taken for poison."""
    ledger = open_ledger(quick_settings)
    with ExitStack() as stack:
        proxies = [stack.enter_context(proxy_to(quick_settings.broker_url)) for _ in range(2)]
        for _, url in proxies:
            employ(ledger, "--processes", "1", "--slots", "2", settings=replace(quick_settings, broker_url=url))
        with Load(ledger.book, _CUTS * 5, 200, tasks=[LATE], seconds=0.25):
            for turn in range(_CUTS):
                ended = len(ledger.events.by_task)
                proxies[turn % 2][0].cut()
                eventually(lambda ended=ended: len(ledger.events.by_task) > ended, 30, "another end")  # type: ignore[misc]
        fault_ended = now()
        verdict = ledger.check("network: two workers lose their connections in turn", fault_ended)
    assert not verdict.failures


def test_late_tasks_that_another_worker_only_held_are_not_run_alone(
    quick_settings: Settings, network: tuple[Proxy, str], open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """A worker loses its connection while its claims wait for a slow recorder: these tasks have killed nobody.

    It says so as soon as it can, so the next one runs them together, and not each in a process of its own.
    """
    proxy, url = network
    ledger = open_ledger(quick_settings)
    release = ledger.book.trace.with_name("release")
    recording = employ(ledger, "--roles", "recorder")
    tasks = "--roles", "tasks", "--processes", "1", "--slots"
    loser = employ(ledger, *tasks, "1", "--log-level", "info", settings=replace(quick_settings, broker_url=url))
    ledger.book.send("faulty.tasks.held", str(release))
    ledger.wait_for_starts(1)  # its only slot
    with frozen(recording.child_pids("limetask_worker.recorder")):
        proxy.refuse()
        numbers = [sent.number for sent in (ledger.book.send(LATE, 0.0) for _ in range(_HELD)) if sent]
        deliver_once(quick_settings)
        proxy.refuse(False)
        wait_for_reconnects(loser, 2)
        wait_until_taken(quick_settings)
        ledger.book.send(LATE, 0.0)
        eventually(lambda: waiting_tasks(quick_settings) == 1, what="a task that finds no slot, and goes back")
        proxy.refuse()
        employ(ledger, *tasks, str(_HELD))
        wait_until_taken(quick_settings)
        proxy.refuse(False)
        wait_for_reconnects(loser, 4)
    fault_ended = now()
    eventually(lambda: len(ledger.traces()) > _HELD, what="the start of all tasks")
    release.touch()
    verdict = ledger.check("network: a worker loses what it only holds", fault_ended)
    assert not verdict.failures
    assert verdict.duplicated_late == 0
    assert len({pid for number, pid in ledger.traces() if number in numbers}) == 1


def deliver_once(settings: Settings) -> None:
    """Take all tasks and give them back: from then on whoever gets one asks before it runs."""
    with channel_to(settings.broker_url) as channel:
        while channel.basic_get(Names(settings.namespace).task_queue("default"))[0] is not None:
            pass


def wait_for_reconnects(worker: Worker, count: int) -> None:
    """Its task process has two connections."""
    eventually(lambda: worker.log.count("connected to the broker again") >= count, what=f"{count} reconnects")


def wait_until_taken(settings: Settings) -> None:
    eventually(lambda: waiting_tasks(settings) == 0, what="a worker that has taken all tasks")


def waiting_tasks(settings: Settings) -> int:
    return queue_length(settings.broker_url, Names(settings.namespace).task_queue("default"))
