"""The broker's limit for a message has been lowered since larger ones were sent, as by an upgrade: none is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pika
import pytest

from limetask import Settings, Status, aio, configure, get_status, ids, publish_event, send_task
from limetask.arguments import encode_arguments
from limetask.codec import encode_dead_letter, encode_task
from limetask.dead_letters import ALL, list_dead_letters, retry
from limetask.message import Envelope, Started, TaskIdentity
from limetask.records import encode_started
from limetask.topology import Names
from tests.broker import channel_to, declare_namespace, queue_length
from tests.faults.nodes import Node
from tests.waiting import eventually
from tests.worker import Worker, write_files

StartWorker = Callable[..., Worker]

_LIMIT = 50_000
_LARGE = "x" * 2 * _LIMIT
_TOLD = f"larger than the broker takes, {_LIMIT:,} bytes"


@dataclass
class Lowering:
    """A broker that takes all sizes, until its limit is `lowered`."""

    broker: Node
    names: Names

    def publish(self, exchange: str, queue: str, envelope: Envelope) -> None:
        properties = pika.BasicProperties(
            headers=dict(envelope.headers or {}),
            content_type=envelope.content_type,
            message_id=envelope.message_id,
            type=envelope.kind,
            delivery_mode=2,
        )
        with channel_to(self.broker.url) as channel:
            channel.basic_publish(exchange, queue, envelope.body, properties, mandatory=True)

    def send(self, task: str, app: str = "acme", put_off: int = 0) -> TaskIdentity:
        """Send a large task, into the default queue."""
        identity = TaskIdentity(ids.new_task_id(app), task, app, 1, None)
        envelope = encode_task(identity, encode_arguments([_LARGE], {}, 3 * _LIMIT), put_off=put_off)
        self.publish(self.names.tasks_exchange, self.names.task_queue("default"), envelope)
        return identity

    def lower(self) -> None:
        set_limit(self.broker, _LIMIT)


def set_limit(broker: Node, limit: int) -> None:
    broker.ctl("eval", f"application:set_env(rabbit, max_message_size, {limit}).")


@pytest.fixture
def lowering(own_broker: Node, own_broker_settings: Settings) -> Iterator[Lowering]:
    configure(own_broker_settings)
    declare_namespace(own_broker.url, own_broker_settings.namespace)
    yield Lowering(own_broker, Names(own_broker_settings.namespace))
    set_limit(own_broker, 128 * 1024**2)


def test_a_task_that_must_not_run_is_set_aside_whole(
    lowering: Lowering, own_broker_settings: Settings, start_worker: StartWorker
) -> None:
    """The broker makes the dead letter, which can be retried when the limit is raised; the failure says why."""
    unknown = lowering.send("shop.tasks.forgotten")
    lowering.lower()
    worker = start_worker(own_broker_settings, "shop", "--processes", "1")
    ended = get_status(unknown.task_id, "acme").wait(30)
    assert (ended.status, ended.error and ended.error.type) == (Status.FAILURE, "UnknownTaskError")
    assert send_task("shop.tasks.add", "acme", 1, 2).wait(30).result == 3
    [letter] = eventually(list_dead_letters, what="a dead letter")
    assert letter.task_id == unknown.task_id
    assert letter.size > 2 * _LIMIT
    assert "rejected" in letter.reason
    assert worker.log.count(_TOLD) < 5, worker.log
    assert worker.stop() == 0


def test_a_task_in_another_queue_than_its_own_runs_from_there(
    lowering: Lowering, own_broker_settings: Settings, start_worker: StartWorker, tmp_path: Path
) -> None:
    """It cannot be moved, and need not be."""
    source = """
        from limetask import Application, task

        @task(qos="background")
        def measure(app: Application, text: str) -> int:
            return len(text)
    """
    write_files(tmp_path / "code", {"measuring/__init__.py": source})
    moved = lowering.send("measuring.measure")
    lowering.lower()
    start_worker(own_broker_settings, "measuring", "--processes", "1", PYTHONPATH=str(tmp_path / "code"))
    assert get_status(moved.task_id, "acme").wait(40).result == len(_LARGE)
    assert list_dead_letters() == []


def test_a_task_that_another_worker_has_started_waits_where_it_is(
    lowering: Lowering, own_broker_settings: Settings, start_worker: StartWorker
) -> None:
    """It cannot be put off by the broker. A worker that stops does not wait for it, and leaves it in its queue."""
    held = lowering.send("shop.tasks.length", put_off=1)
    now = datetime.now(UTC)
    start = Started(held.task_id, held.task_name, "acme", 1, "elsewhere.1.a", False, now, now)
    lowering.publish("", lowering.names.results_queue, encode_started([start]))
    lowering.lower()
    worker = start_worker(own_broker_settings, "shop", "--processes", "1")
    eventually(lambda: "waits in its worker's hand" in worker.log, 30, "a task in hand")
    assert send_task("shop.tasks.add", "acme", 1, 2).wait(30).result == 3
    assert worker.stop() == 0
    queue = lowering.names.task_queue("default")
    eventually(lambda: queue_length(lowering.broker.url, queue) == 1, what="the message in its queue")


def test_a_task_for_nobody_leaves_its_headers(
    lowering: Lowering, own_broker_settings: Settings, start_worker: StartWorker
) -> None:
    """Its message may be acked already when its application turns out to be unknown: what is known of it is kept."""
    task = lowering.send("shop.tasks.length", app="nobody")
    lowering.lower()
    factory = "platform_applications:open_application"
    start_worker(own_broker_settings, "shop", "--processes", "1", LIMETASK_APPLICATION_FACTORY=factory)
    assert get_status(task.task_id, "nobody").wait(30).status is Status.FAILURE
    [letter] = eventually(list_dead_letters, what="a dead letter")
    assert (letter.task_id, letter.size) == (task.task_id, 0)
    assert "its body is left out" in letter.reason
    assert "unknown application" in letter.reason
    outcome = retry(ALL)
    assert (outcome.count, len(outcome.refused)) == (0, 1)


@pytest.mark.parametrize("retries", [0, 3])
def test_an_event_that_a_handler_cannot_handle_is_set_aside_whole(
    lowering: Lowering, own_broker_settings: Settings, start_worker: StartWorker, tmp_path: Path, retries: int
) -> None:
    """Also one that would be handled again, since it cannot be sent for that. Other events are handled."""
    source = f"""
        from limetask import Application, Event, event_handler

        @event_handler("shop.#", name="strict.refuse", retry={retries})
        def refuse(app: Application, event: Event) -> None:
            if event.body != "small":
                raise ValueError("not this one")
            print("handled the small one", flush=True)
    """
    write_files(tmp_path / "code", {"strict/__init__.py": source})
    arguments = ("strict", "--processes", "1")
    first = start_worker(own_broker_settings, *arguments, PYTHONPATH=str(tmp_path / "code"))
    assert first.stop() == 0  # its queue is there now
    publish_event("acme", "shop.order.paid.v1", _LARGE)
    lowering.lower()
    worker = start_worker(own_broker_settings, *arguments, PYTHONPATH=str(tmp_path / "code"))
    [letter] = eventually(list_dead_letters, 30, "a dead letter")
    assert (letter.kind, letter.size > 2 * _LIMIT) == ("event", True)
    publish_event("acme", "shop.order.paid.v1", "small")
    eventually(lambda: "handled the small one" in worker.log, what="another event")
    assert worker.stop() == 0
    with channel_to(lowering.broker.url) as channel:
        assert channel.queue_delete(lowering.names.handler_queue("strict.refuse")).method.message_count == 0


def test_a_strange_record_does_not_stop_the_recorder(
    lowering: Lowering, own_broker_settings: Settings, start_worker: StartWorker
) -> None:
    """What is known of it is kept."""
    strange = Envelope(_LARGE.encode(), "application/json", "strange", "completion")
    lowering.publish("", lowering.names.results_queue, strange)
    lowering.lower()
    start_worker(own_broker_settings, "shop", "--processes", "1")
    assert send_task("shop.tasks.add", "acme", 1, 2).wait(30).result == 3
    [letter] = eventually(list_dead_letters, what="a dead letter")
    assert "its body is left out" in letter.reason
    assert "not a completion record" in letter.reason


def test_a_letter_that_is_too_large_does_not_keep_others_from_being_retried(lowering: Lowering) -> None:
    """It is told as one that could not be retried, and stays."""
    large = encode_arguments([_LARGE], {}, 3 * _LIMIT)
    small = encode_arguments([1], {}, 100)
    for body in (*[small] * 10, large, *[small] * 10):
        identity = TaskIdentity(ids.new_task_id("acme"), "a.task", "acme", 1, None)
        queue = lowering.names.task_queue("default")
        letter = encode_dead_letter(encode_task(identity, body), queue, "unknown task", datetime.now(UTC))
        lowering.publish(lowering.names.dead_exchange, "", letter)
    lowering.lower()
    outcome = retry(ALL)
    assert outcome.count == 20
    [(refused, reason)] = outcome.refused
    assert refused.size == len(large)
    assert _TOLD in reason
    assert len(eventually(list_dead_letters)) == 1


def test_a_durable_subscription_goes_on_after_a_strange_message(
    lowering: Lowering, own_broker_settings: Settings
) -> None:
    """What is known of it is kept."""
    queue = lowering.names.handler_queue("audit")

    async def listen() -> object:
        async with aio.subscribe("shop.#", durable="audit") as events:
            async with asyncio.timeout(20):
                return (await anext(events)).body

    async def main() -> None:
        await aio.publish_event("acme", "shop.order.paid.v1", "first")
        async with aio.subscribe("shop.#", durable="audit"):
            pass  # its queue is there now
        lowering.publish("", queue, Envelope(_LARGE.encode(), "application/json", "strange"))
        await aio.close()  # the broker keeps to the limit with which a channel was opened
        lowering.lower()
        await aio.publish_event("acme", "shop.order.paid.v1", "next")
        assert await listen() == "next"
        await aio.close()

    try:
        asyncio.run(main())
    finally:
        with channel_to(lowering.broker.url) as channel:
            channel.queue_delete(queue)
    [letter] = eventually(list_dead_letters, what="a dead letter")
    assert "its body is left out" in letter.reason
