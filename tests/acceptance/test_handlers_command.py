"""`limetask handlers` and the doctor's word on handlers, with a real recorder and real queues."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pika
import pytest

from limetask import Settings
from limetask.errors import BrokerError, NotFoundError
from limetask.handler_registry import find_handlers, find_orphans, list_handlers, prune_handlers
from limetask.message import HandlerBindings
from limetask.records import encode_handlers
from limetask.store import Store
from limetask.topology import Names, handler_topology
from limetask_worker import schema
from limetask_worker.store_writer import StoreWriter
from tests.broker import channel_to, declare_namespace
from tests.waiting import eventually
from tests.worker import Worker, environment_of

NOTIFY, AUDIT = "shop.events.notify", "shop.events.audit"
FAILURES = "core.task.#.failure.v1"
LONG_AGO = timedelta(minutes=11)


def run(settings: Settings, *arguments: str, answer: str = "") -> subprocess.CompletedProcess[str]:
    """Run `limetask` with these settings, with `answer` typed into it."""
    return subprocess.run(
        [Path(sys.executable).with_name("limetask"), *arguments],
        env=environment_of(settings),
        input=answer,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def document(settings: Settings, *arguments: str) -> Any:
    """Run a command with --json and return its document."""
    ran = run(settings, *arguments, "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    return json.loads(ran.stdout)


@pytest.fixture
def queues(settings: Settings) -> Iterator[Names]:
    """The namespace with the queues of two handlers, both for failures."""
    declare_namespace(settings.broker_url, settings.namespace)
    names = Names(settings.namespace)
    with channel_to(settings.broker_url) as channel:
        for name in (NOTIFY, AUDIT):
            wanted = handler_topology(names, name, [FAILURES])
            channel.queue_declare(wanted.queues[0].name, durable=True, arguments=dict(wanted.queues[0].arguments))
            for binding in wanted.bindings:
                channel.queue_bind(binding.queue, binding.exchange, binding.routing_key)
    yield names
    with channel_to(settings.broker_url) as channel:
        for name in (NOTIFY, AUDIT):
            channel.queue_delete(names.handler_queue(name))


def record(settings: Settings, *handlers: str, ago: timedelta = LONG_AGO) -> None:
    """Write into the store what a recorder would have written that long ago."""
    schema.upgrade(settings.store_url)
    heard_at = datetime.now(UTC) - ago
    with closing(StoreWriter(settings.store_url)) as writer:
        writer.merge_handlers([HandlerBindings(name, [FAILURES], heard_at) for name in handlers], heard_at)


def publish_failures(settings: Settings, names: Names, count: int) -> None:
    with channel_to(settings.broker_url) as channel:
        for _ in range(count):
            channel.basic_publish(names.events_exchange, "core.task.shop.tasks.add.failure.v1", b"{}")


def waiting_after_a_failure(settings: Settings, names: Names) -> int:
    """Publish one more event, and return how many the only handler has."""
    publish_failures(settings, names, 1)
    waiting: int = document(settings, "handlers", "list")[0]["waiting"]
    return waiting


def names_in_store(settings: Settings) -> list[str]:
    with closing(Store(settings.resolved_store_url)) as store:
        return [handler.name for handler in store.handlers()]


def test_what_workers_declare_is_recorded_and_listed(
    settings_for_each_store: Settings, start_worker: Callable[..., Worker]
) -> None:
    """The recorder notes what comes by the results queue; the list has patterns, events and consumers."""
    settings = settings_for_each_store
    start_worker(settings, "--roles", "recorder")
    names = Names(settings.namespace)
    assert run(settings, "handlers", "list").stdout == "No event handlers: no worker has declared any.\n"
    wanted = handler_topology(names, NOTIFY, [FAILURES, "shop.#"])
    told = encode_handlers([HandlerBindings(NOTIFY, [FAILURES, "shop.#"], datetime.now(UTC))])
    with channel_to(settings.broker_url) as channel:
        channel.queue_declare(wanted.queues[0].name, durable=True, arguments=dict(wanted.queues[0].arguments))
        properties = pika.BasicProperties(content_type=told.content_type, type=told.kind, delivery_mode=2)
        channel.basic_publish("", names.results_queue, told.body, properties)

        [handler] = eventually(lambda: document(settings, "handlers", "list"))
        assert (handler["name"], handler["bindings"]) == (NOTIFY, [FAILURES, "shop.#"])
        assert (handler["queue"], handler["consumers"]) == (names.handler_queue(NOTIFY), 0)
        # The recorder binds what it hears of for the first time.
        eventually(lambda: waiting_after_a_failure(settings, names))
        channel.basic_consume(names.handler_queue(NOTIFY), lambda *_: None)
        eventually(lambda: document(settings, "handlers", "list")[0]["consumers"] == 1)
        listed = run(settings, "handlers", "list")
        assert listed.returncode == 0
        assert [part for part in (NOTIFY, FAILURES, "shop.#", "DECLARED AGO") if part not in listed.stdout] == []
        channel.queue_delete(names.handler_queue(NOTIFY))


def test_prune_deletes_what_has_no_code_and_nothing_else(
    settings: Settings, queues: Names, start_worker: Callable[..., Worker]
) -> None:
    """It tells how many events go, asks, deletes the queue, and the recorder forgets it; others stay."""
    record(settings, NOTIFY)
    record(settings, AUDIT, ago=timedelta(minutes=4))
    publish_failures(settings, queues, 3)
    start_worker(settings, "--roles", "recorder")
    refused = run(settings, "handlers", "prune", answer="n\n")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"{NOTIFY}: 3 undelivered events, 0 consumers, declared 11 min ago" in refused.stderr
    assert "Delete 1 queue with 3 undelivered events? [y/N]" in refused.stderr
    assert len(list_handlers()) == 2

    pruned = run(settings, "handlers", "prune", answer="y\n")
    assert (pruned.returncode, pruned.stdout) == (0, "1 queue deleted, with 3 events.\n")
    eventually(lambda: names_in_store(settings) == [AUDIT])
    [audit] = list_handlers()
    assert audit.waiting == 3
    assert document(settings, "handlers", "prune", "--yes") == {"deleted": {}, "in_use": []}
    assert document(settings, "handlers", "prune", "--older-than", "1m", "--yes") == {
        "deleted": {AUDIT: 3},
        "in_use": [],
    }
    eventually(lambda: names_in_store(settings) == [])


def test_a_queue_that_is_consumed_from_is_left_alone(
    settings: Settings, queues: Names, start_worker: Callable[..., Worker]
) -> None:
    """Neither chosen by its age nor named is it deleted; named, that is told, and the other one goes."""
    record(settings, NOTIFY, AUDIT)
    start_worker(settings, "--roles", "recorder")
    with channel_to(settings.broker_url) as channel:
        channel.basic_consume(queues.handler_queue(NOTIFY), lambda *_: None)
        assert [handler.name for handler in find_orphans()] == [AUDIT]
        ran = run(settings, "handlers", "prune", NOTIFY, AUDIT, "--yes")
        assert (ran.returncode, ran.stdout) == (1, "1 queue deleted.\n")
        assert f"{NOTIFY} was left alone: a worker consumes from its queue" in ran.stderr
        eventually(lambda: names_in_store(settings) == [NOTIFY])
        assert prune_handlers([NOTIFY]).in_use == (NOTIFY,)


@pytest.mark.parametrize("seconds", [5, 90])
def test_a_handler_that_a_worker_has_just_declared_is_left_alone(
    settings: Settings, queues: Names, seconds: int
) -> None:
    """One that stands still in a long event may have no consumer; its events are where they were.

    Its worker declares it each minute, and that may be recorded late.
    """
    record(settings, NOTIFY, ago=timedelta(seconds=seconds))
    publish_failures(settings, queues, 2)
    with pytest.raises(
        BrokerError, match=f"{NOTIFY}: it is in doubt whether it is in use, .* within three minutes: stop it"
    ):
        prune_handlers([NOTIFY])
    assert find_handlers([NOTIFY])[0].waiting == 2


def test_a_queue_without_a_record_can_be_named(settings: Settings, queues: Names) -> None:
    """What the recorder never heard of is found by its name, also without a recorder; what is nowhere is told."""
    [found] = find_handlers([NOTIFY])
    assert (found.declared_at, found.waiting) == (None, 0)
    with pytest.raises(NotFoundError, match=r"no event handler shop\.nowhere"):
        find_handlers([NOTIFY, "shop.nowhere"])
    assert prune_handlers([NOTIFY, "shop.nowhere"]).deleted == {NOTIFY: 0, "shop.nowhere": 0}
    with pytest.raises(NotFoundError):
        find_handlers([NOTIFY])


def test_without_a_recorder_nothing_is_taken_for_orphaned(settings: Settings, queues: Names) -> None:
    """Nobody has noted what workers declare: prune refuses to choose."""
    record(settings, NOTIFY)
    with pytest.raises(BrokerError, match="no recorder runs"):
        find_orphans()
    ran = run(settings, "handlers", "prune", "--yes")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "Error: no recorder runs" in ran.stderr
    assert list_handlers()[0].waiting == 0


def test_the_doctor_names_orphans(settings: Settings, queues: Names, start_worker: Callable[..., Worker]) -> None:
    """A handler without code is amiss with its events and the remedy; one that is about to come back is not."""
    record(settings, NOTIFY)
    record(settings, AUDIT, ago=timedelta(minutes=2))
    publish_failures(settings, queues, 3)
    start_worker(settings, "--roles", "recorder")
    examined = run(settings, "doctor")
    assert examined.returncode == 1
    assert f"amiss event handler {NOTIFY}: orphaned" in examined.stdout
    assert f"3 events wait in {queues.handler_queue(NOTIFY)}" in examined.stdout
    assert f"limetask handlers prune {NOTIFY}" in examined.stdout
    assert AUDIT not in examined.stdout

    prune_handlers([NOTIFY])
    eventually(lambda: names_in_store(settings) == [AUDIT])
    told = f"ok    event handlers: 1 are declared, 3 events wait for them; {AUDIT} had a worker within 10 minutes"
    assert told in run(settings, "doctor").stdout


def test_the_doctor_sees_consumers_and_lost_queues(
    settings: Settings, queues: Names, start_worker: Callable[..., Worker]
) -> None:
    """With a consumer each, however long ago declared, all is well; a declared handler without a queue is amiss."""
    record(settings, NOTIFY)
    record(settings, AUDIT, ago=timedelta(minutes=2))
    start_worker(settings, "--roles", "recorder")
    with channel_to(settings.broker_url) as channel:
        for name in (NOTIFY, AUDIT):
            channel.basic_consume(queues.handler_queue(name), lambda *_: None)
        well = "ok    event handlers: 2 are declared, 0 events wait for them, and each has a process"
        eventually(lambda: well in run(settings, "doctor").stdout)
        channel.queue_delete(queues.handler_queue(AUDIT))
        assert f"amiss event handler {AUDIT}: a worker declares it, and its queue" in run(settings, "doctor").stdout


def test_an_absent_broker_is_one_error(settings: Settings) -> None:
    """It is told without a traceback, with exit code 1."""
    absent = replace(settings, broker_url="amqp://127.0.0.1:1", connect_timeout=0.3)
    for arguments in (["handlers", "list"], ["handlers", "prune"], ["handlers", "prune", "a.b"]):
        ran = run(absent, *arguments)
        assert (ran.returncode, ran.stdout) == (1, "")
        assert ran.stderr.startswith("Error: no RabbitMQ at 127.0.0.1:1")
