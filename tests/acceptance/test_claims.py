"""A task that may be in two workers' hands: the recorder's word arrives late, or twice, and it still runs once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pika
import pytest

from limetask import Settings, Status, configure, get_status, ids, send_task
from limetask.arguments import encode_arguments
from limetask.codec import encode_task
from limetask.message import Claim, Decision, Envelope, Released, Started, TaskIdentity, Verdict
from limetask.records import decode_claim, decode_verdict, encode_claim, encode_released, encode_started
from limetask.topology import Names
from limetask_worker.timings import UNNOTICED_LAG_SECONDS
from tests.broker import channel_to, declare_namespace, queue_length, take_all
from tests.databases import new_postgresql_database
from tests.proxy import proxy_to
from tests.services import POSTGRES_URL
from tests.waiting import eventually
from tests.worker import Worker

OTHER_WORKER = "elsewhere.1.a"


def test_a_claim_that_was_asked_twice_and_granted_late_loses_no_task(
    settings: Settings, start_worker: Callable[..., Worker]
) -> None:
    """A worker lets a task go since another has started it; then the copy of its question is granted: it runs yet.

    The copy's answer does not arrive, as when the worker has lost its connection. The worker stands still meanwhile, so
    that the order is certain.
    """
    names = Names(settings.namespace)
    identity = TaskIdentity(ids.new_task_id("acme"), "shop.tasks.add", "acme", 1, None)
    declare_namespace(settings.broker_url, settings.namespace)
    with channel_to(settings.broker_url) as channel:
        spy = Spy(channel, names)
        channel.basic_consume(names.results_queue, spy.hear_record, consumer_tag="before the recorder")
        worker = start_worker(settings, "shop", "--processes", "1")
        elsewhere = started_elsewhere(identity)
        publish(channel, "", names.results_queue, encode_started([elsewhere]))
        task = encode_task(identity, encode_arguments([1, 2], {}, 1000), put_off=1)
        publish(channel, names.tasks_exchange, names.task_queue("default"), task)
        claim = spy.wait_for_claim()
        [process] = worker.child_pids()
        os.kill(process, signal.SIGSTOP)
        try:
            spy.listen(claim.reply_to)
            spy.listen(unheard := names.reply_key("0" * 16))
            channel.basic_cancel("before the recorder")
            channel.basic_nack(0, multiple=True)  # from here on the recorder reads, all of it
            assert spy.wait_for_verdict().decision is Decision.STARTED_ELSEWHERE
            released = Released(identity.task_id, identity.attempt, OTHER_WORKER, elsewhere.started_at)
            publish(channel, "", names.results_queue, encode_released(released))
            publish(channel, "", names.results_queue, encode_claim(replace(claim, reply_to=unheard)))
            assert spy.wait_for_verdict().decision is Decision.RUN
        finally:
            os.kill(process, signal.SIGCONT)
    ended = get_status(identity.task_id, "acme").wait(30)
    assert (ended.status, ended.result) == (Status.SUCCESS, 3)


def test_what_is_delivered_late_is_claimed_although_it_is_new(
    settings: Settings, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """As when the worker's node of a cluster was cut off: another worker has got the same message meanwhile."""
    names = Names(settings.namespace)
    identity = TaskIdentity(ids.new_task_id("acme"), "shop.tasks.count_run", "acme", 1, None)
    with proxy_to(settings.broker_url) as (proxy, url), channel_to(settings.broker_url) as channel:
        worker = start_worker(replace(settings, broker_url=url), "shop", "--processes", "1")
        assert send_task("shop.tasks.add", "acme", 1, 2).wait(30).result == 3
        proxy.stall("client")
        stalled_at = time.monotonic()
        task = encode_task(identity, encode_arguments([str(tmp_path / "runs"), 1], {}, 1000))
        publish(channel, names.tasks_exchange, names.task_queue("default"), task)
        publish(channel, "", names.results_queue, encode_started([started_elsewhere(identity)]))
        eventually(lambda: queue_length(settings.broker_url, names.task_queue("default")) == 0, what="a delivery")
        eventually(lambda: time.monotonic() - stalled_at > UNNOTICED_LAG_SECONDS + 0.1, what="a lag")
        proxy.flow()
        eventually(lambda: f"started by {OTHER_WORKER}" in worker.log, what="a claim")
    assert not (tmp_path / "runs").exists()


def test_a_claim_that_cannot_be_recorded_is_answered(
    settings: Settings, start_worker: Callable[..., Worker], latin_database: str
) -> None:
    """The store refuses an application's name, so nobody can tell whether its task has run: it becomes a dead letter.

    Tasks of others go on meanwhile.
    """
    names = Names(settings.namespace)
    identity = TaskIdentity(ids.new_task_id("\u0434\u043e\u043c"), "shop.tasks.add", "\u0434\u043e\u043c", 1, None)
    configure(replace(settings, store_url=latin_database))
    start_worker(replace(settings, store_url=latin_database), "shop", "--processes", "1")
    with channel_to(settings.broker_url) as channel:
        task = encode_task(identity, encode_arguments([1, 2], {}, 1000), put_off=1)
        publish(channel, names.tasks_exchange, names.task_queue("default"), task)
    # Its claim, its own message, and its failure, which cannot be recorded either.
    letters = take_all(settings.broker_url, names.dead_queue, 3)
    assert {letter.headers["kind"] for letter in letters} == {"claim", "", "completion"}
    assert send_task("shop.tasks.add", "acme", 1, 2).wait(30).result == 3
    assert queue_length(settings.broker_url, names.dead_queue) == 0


@pytest.fixture
def latin_database() -> Iterator[str]:
    """The URL of an empty database that holds Western European characters only."""
    with new_postgresql_database(os.environ[POSTGRES_URL], "ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0") as url:
        yield url


class Spy:
    """Reads what is on its way to the recorder, and what it answers."""

    def __init__(self, channel: Any, names: Names) -> None:
        self._channel = channel
        self._names = names
        self._claims: list[Claim] = []
        self._verdicts: list[Verdict] = []
        self._queue = channel.queue_declare("", exclusive=True).method.queue
        channel.basic_consume(self._queue, self._hear_verdict, auto_ack=True)

    def hear_record(self, _channel: Any, _method: Any, properties: pika.BasicProperties, body: bytes) -> None:
        """Look at a record, and keep it unacked."""
        if properties.type == "claim":
            self._claims.append(decode_claim(body))

    def listen(self, reply_key: str) -> None:
        """Hear the answers to this key, too."""
        self._channel.queue_bind(self._queue, self._names.events_exchange, reply_key)

    def wait_for_claim(self) -> Claim:
        self._wait_for(self._claims, "a claim")
        return self._claims.pop(0)

    def wait_for_verdict(self) -> Verdict:
        self._wait_for(self._verdicts, "a verdict")
        return self._verdicts.pop(0)

    def _hear_verdict(self, _channel: Any, _method: Any, _properties: Any, body: bytes) -> None:
        self._verdicts.append(decode_verdict(body))

    def _wait_for(self, found: Sequence[object], what: str) -> None:
        def look() -> bool:
            self._channel.connection.process_data_events(0.05)
            return bool(found)

        eventually(look, what=what)


def started_elsewhere(identity: TaskIdentity) -> Started:
    """The record of a start in another worker, which never told anything else."""
    now = datetime.now(UTC)
    return Started(
        identity.task_id,
        identity.task_name,
        identity.app,
        identity.attempt,
        OTHER_WORKER,
        acks_late=False,
        sent_at=ids.sent_at(identity.task_id),
        started_at=now,
    )


def publish(channel: Any, exchange: str, key: str, envelope: Envelope) -> None:
    """Publish a message of limetask's with plain pika."""
    properties = pika.BasicProperties(
        content_type=envelope.content_type,
        headers=dict(envelope.headers or {}),
        delivery_mode=2,
        message_id=envelope.message_id,
        type=envelope.kind,
    )
    channel.basic_publish(exchange, key, envelope.body, properties, mandatory=True)
