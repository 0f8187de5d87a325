"""The broker dies, blocks, or loses what it should keep."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

import pytest

from limetask import MessageTooLargeError, Settings, Status, UnroutableError, get_status, send_task
from limetask.topology import Names, completion_bindings
from tests.broker import channel_to
from tests.faults.conftest import OpenLedger, StartWorker
from tests.faults.form import in_form
from tests.faults.ledger import now
from tests.faults.load import EARLY, LATE, Load
from tests.faults.nodes import Node
from tests.waiting import eventually

_RECOVERY_SECONDS = 30.0
_SLOW_SECONDS = 5.0
_ALARM_SECONDS = in_form(4.5, 30.0)


def test_a_broker_that_is_killed_twice_loses_nothing(
    own_broker: Node, own_broker_settings: Settings, open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """kill -9 of the node under load, started again on its data: work goes on by itself, and no task fails."""
    ledger = open_ledger(own_broker_settings)
    employ(ledger, "--processes", "2", "--slots", "4")
    with Load(ledger.book, in_form(400, 2500), in_form(100, 150), seconds=0.01) as load:
        for kill in range(2):
            load.wait_for_share((kill + 1) / 4)
            own_broker.kill()
            own_broker.up()
            fault_ended = now()
            ledger.wait_for_recovery(fault_ended)
    verdict = ledger.check("SIGKILL of the broker, twice", fault_ended)
    assert not verdict.failures
    assert verdict.recovery_seconds is not None
    assert verdict.recovery_seconds < _RECOVERY_SECONDS


def test_a_blocked_broker_makes_sends_raise_in_time(
    own_broker: Node, own_broker_settings: Settings, open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """A disk alarm: sends raise within their deadline, acks go on, and afterwards everything is told."""
    ledger = open_ledger(own_broker_settings)
    employ(ledger, "--processes", "2", "--slots", "4")
    with Load(ledger.book, in_form(300, 2500), in_form(80, 120), seconds=0.01) as load:
        load.wait_for_share(0.4)
        own_broker.ctl("set_disk_free_limit", "9000GB")
        eventually(lambda: ledger.book.send(EARLY, 0.0) is None, what="a send that meets the alarm")
        time.sleep(_ALARM_SECONDS)
        own_broker.ctl("set_disk_free_limit", "50MB")
        fault_ended = now()
        ledger.wait_for_recovery(fault_ended)
    verdict = ledger.check("disk alarm of the broker", fault_ended)
    assert not verdict.failures


def test_a_frozen_broker_makes_sends_raise_in_time(
    own_broker: Node, own_broker_settings: Settings, open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """SIGSTOP of the node for longer than a send's deadline, then SIGCONT: no send hangs, no task fails."""
    ledger = open_ledger(replace(own_broker_settings, heartbeat=2))
    employ(ledger, "--processes", "2", "--slots", "4")
    with Load(ledger.book, in_form(300, 2000), in_form(80, 120), seconds=0.01) as load:
        load.wait_for_share(0.4)
        with own_broker.frozen():
            time.sleep(_ALARM_SECONDS)
        fault_ended = now()
        ledger.wait_for_recovery(fault_ended)
    verdict = ledger.check("SIGSTOP of the broker", fault_ended)
    assert ledger.book.unknown, "no send met the frozen broker"
    assert not verdict.failures


def test_a_queue_that_is_deleted_under_its_consumer_is_made_anew(
    quick_settings: Settings, open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """Its consumer comes back, what runs goes on to its end, and what is sent afterwards is run."""
    ledger = open_ledger(quick_settings)
    release = ledger.book.trace.with_name("release")
    queue = Names(quick_settings.namespace).task_queue("default")
    employ(ledger, "--processes", "2", "--slots", "8")
    with Load(ledger.book, in_form(100, 1000), in_form(100, 200)):
        pass
    ledger.wait_for_ends(60)  # what its consumer holds would be deleted with the queue
    held = [ledger.book.send(f"faulty.tasks.{name}", str(release)) for name in ("held", "held_late") * 2]
    eventually(lambda: all(sent and ledger.starts()[sent.number] for sent in held), what="bodies that run")
    with channel_to(quick_settings.broker_url) as channel:
        assert channel.queue_declare(queue, passive=True).method.message_count == 0
        channel.queue_delete(queue)
    fault_ended = now()
    ledger.wait_for_recovery(fault_ended)
    with Load(ledger.book, in_form(100, 1000), in_form(100, 200)):
        release.touch()
    verdict = ledger.check("task queue deleted under its consumer", fault_ended)
    assert not verdict.failures


def test_a_late_task_that_outlives_the_consumer_timeout_ends_all_the_same(
    own_broker: Node,
    own_broker_settings: Settings,
    open_ledger: OpenLedger,
    employ: StartWorker,
    request: pytest.FixtureRequest,
) -> None:
    """The broker closes the channel under slow late tasks, again and again: they end once, and others are run."""
    own_broker.ctl("eval", "[application:set_env(rabbit, K, 1000) || K <- [consumer_timeout, channel_tick_interval]].")
    request.addfinalizer(partial(own_broker.ctl, "eval", "application:set_env(rabbit, consumer_timeout, 1800000)."))
    ledger = open_ledger(own_broker_settings)
    worker = employ(ledger, "--processes", "1", "--slots", "8")
    slow = [ledger.book.send(LATE, _SLOW_SECONDS) for _ in range(4)]
    with Load(ledger.book, in_form(100, 1000), in_form(30, 60)):
        begun = now()
    verdict = ledger.check("consumer timeout of the broker under slow late tasks", begun)
    assert not verdict.failures
    assert "PRECONDITION_FAILED" in worker.log, "the broker has closed no channel"
    assert all(sent and ledger.starts()[sent.number] == 1 for sent in slow)


def test_what_has_no_queue_is_not_taken_for_sent(
    quick_settings: Settings, open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """The task queue is unbound under load: sends raise UnroutableError; bound again, they go on."""
    ledger = open_ledger(quick_settings)
    names = Names(quick_settings.namespace)
    queue = names.task_queue("default")
    employ(ledger, "--processes", "1", "--slots", "4")
    with Load(ledger.book, in_form(200, 1500), in_form(80, 150)) as load:
        load.wait_for_share(0.4)
        with channel_to(quick_settings.broker_url) as channel:
            channel.queue_unbind(queue, names.tasks_exchange, queue)
            eventually(lambda: len(ledger.book.refusals) > 5, what="refused sends")
            channel.queue_bind(queue, names.tasks_exchange, queue)
        fault_ended = now()
        ledger.wait_for_recovery(fault_ended)
    verdict = ledger.check("task queue unbound", fault_ended)
    assert not verdict.failures
    assert {type(refusal) for refusal in ledger.book.refusals} == {UnroutableError}
    assert not set(ledger.book.unknown) & set(ledger.starts())


def test_ends_are_recorded_although_the_results_queue_was_unbound(
    quick_settings: Settings, open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """The results queue and the exchange of events are unbound under load, and nobody mends it: all is told."""
    ledger = open_ledger(quick_settings)
    names = Names(quick_settings.namespace)
    employ(ledger, "--processes", "1", "--slots", "4")
    with Load(ledger.book, in_form(200, 1500), in_form(80, 150), seconds=0.01) as load:
        load.wait_for_share(0.4)
        with channel_to(quick_settings.broker_url) as channel:
            channel.queue_unbind(names.results_queue, names.completions_exchange, "")
            channel.exchange_unbind(names.events_exchange, names.completions_exchange, "")
        fault_ended = now()
    verdict = ledger.check("results queue unbound from the events, while others subscribe", fault_ended)
    assert not verdict.failures


def test_an_end_that_went_past_the_recorder_is_told(
    quick_settings: Settings, open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """With all bindings of the results queue gone, and nobody to renew them, ends are missed: their tasks say so.

    That takes the worker's timeout, since the records of ends may be late.
    """
    ledger = open_ledger(replace(quick_settings, worker_timeout=3.0))
    names = Names(quick_settings.namespace)
    employ(ledger, "--roles", "tasks", "--processes", "1")
    ledger.book.send(EARLY, 0.0)  # whoever connects declares what is missing
    with channel_to(quick_settings.broker_url) as channel:
        for binding in completion_bindings(names).bindings:
            channel.queue_unbind(binding.queue, binding.exchange, binding.routing_key)
    for _ in range(10):
        ledger.book.send(EARLY, 0.0)
    eventually(lambda: len(ledger.events.all()) == 11, what="ends of which others hear")
    employ(ledger, "--roles", "recorder")
    ended = [get_status(sent.task_id, sent.app).wait(60) for sent in ledger.book.confirmed[1:]]
    assert {status.error and status.error.type for status in ended} == {"EndLost"}


def test_ends_that_no_queue_takes_are_kept_until_one_does(
    quick_settings: Settings, open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """The same when nobody else subscribes, so that events are unroutable: kept, and told when there is a queue."""
    ledger = open_ledger(quick_settings)
    names = Names(quick_settings.namespace)
    employ(ledger, "--processes", "1", "--slots", "4")
    with Load(ledger.book, in_form(100, 1000), in_form(80, 150), seconds=0.01) as load:
        load.wait_for_share(0.4)
        with ledger.events.unbound(), channel_to(quick_settings.broker_url) as channel:
            for binding in completion_bindings(names).bindings:
                channel.queue_unbind(binding.queue, binding.exchange, binding.routing_key)
            known = len(ledger.traces())
            for _ in range(3):  # the load may be over by now
                ledger.book.send(EARLY, 0.0)
            eventually(lambda: len(ledger.traces()) >= known + 3, what="bodies that end meanwhile")
            channel.queue_bind(names.results_queue, names.completions_exchange, "")
        fault_ended = now()
    verdict = ledger.check("results queue unbound from the events", fault_ended)
    assert not verdict.failures


def test_what_is_too_large_is_said_and_harms_nothing_else(
    quick_settings: Settings, open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """Oversize arguments raise at send; an oversize result is its task's FAILURE; all others succeed."""
    ledger = open_ledger(quick_settings)
    employ(ledger, "--processes", "1", "--slots", "4")
    limit = quick_settings.max_arguments_bytes
    begun = now()
    with Load(ledger.book, in_form(100, 1000), in_form(80, 200)):
        for size in (limit, 2 * limit, 32 * limit):
            with pytest.raises(MessageTooLargeError, match=f"{limit:,}"):
                send_task(EARLY, "acme", b"x" * size)
        bulky = [ledger.book.send("faulty.tasks.bulky", size) for size in (limit + 1, 4 * limit)]
    verdict = ledger.check("oversize arguments and results", begun)
    assert verdict.failures == {"ResultError": 2}
    assert all(sent and get_status(sent.task_id, sent.app).status is Status.FAILURE for sent in bulky)
