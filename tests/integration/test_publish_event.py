"""Users' own events, published to a real broker."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from limetask import (
    ApplicationError,
    BrokerUnreachableError,
    EventError,
    SendOutcomeUnknownError,
    Settings,
    Status,
    configure,
    publish_event,
    send_task,
)
from limetask.client import close_default_client
from limetask.events import decode_event
from limetask.message import Envelope
from limetask.topology import Names
from tests.broker import channel_to, queue_length, subscriber
from tests.proxy import proxy_to
from tests.worker import Worker

KEY = "shop.order.paid.v1"
BODY = {"order": 5, "by": "Åsa", "lines": [1.5, None, True]}
WAIT = 30.0


class CrmApplication:
    """A platform's own application object."""

    identifier = "acme"


def test_an_event_arrives_as_the_wire_format_says(settings: Settings) -> None:
    """Subscribers get the documented JSON under its key, as a persistent message, with the id that was returned."""
    with channel_to(settings.broker_url) as channel, subscriber(settings.broker_url, settings.namespace, "shop.#"):
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, Names(settings.namespace).events_exchange, "shop.order.*.v1")
        event_id = publish_event(CrmApplication(), KEY, BODY)
        method, properties, body = channel.basic_get(queue, auto_ack=True)
    fields = json.loads(body)
    sent_at = datetime.fromisoformat(fields.pop("sent_at"))
    assert fields == {"id": event_id, "routing_key": KEY, "app": "acme", "body": BODY, "cause": None}
    assert abs(datetime.now(UTC) - sent_at) < timedelta(seconds=30)
    assert method.routing_key == KEY
    assert (properties.delivery_mode, properties.content_type, properties.type) == (2, "application/json", "event")
    assert decode_event(Envelope(body, properties.content_type)).body == BODY


def test_every_subscriber_gets_it_and_no_other(settings: Settings) -> None:
    """All whose pattern fits get an event, in the order of its publisher; the recorder does not."""
    url, namespace = settings.broker_url, settings.namespace
    with (
        subscriber(url, namespace, "shop.#") as first,
        subscriber(url, namespace, "#") as second,
        subscriber(url, namespace, "shop.invoice.#") as other,
    ):
        published = [publish_event("acme", KEY, number) for number in range(20)]
        for one in (first, second):
            assert [event["id"] for event in one.wait_for(20)] == published
        assert other.letters == []
    assert queue_length(url, Names(namespace).results_queue) == 0


def test_nobody_need_have_subscribed(settings: Settings) -> None:
    """An event that nobody is bound to is published all the same, and gone."""
    assert publish_event("acme", KEY)
    assert queue_length(settings.broker_url, Names(settings.namespace).dead_queue) == 0


def test_an_event_needs_no_body(settings: Settings) -> None:
    """Without a body an event's key tells everything."""
    with subscriber(settings.broker_url, settings.namespace, "#") as bound:
        publish_event("acme", "shop.closed")
        [event] = bound.wait_for(1)
    assert event["body"] is None


@pytest.mark.parametrize("name", ["shop.events.publish", "shop.events.publish_async"])
def test_an_event_of_a_task_names_it_as_its_cause(
    settings: Settings, start_worker: Callable[..., Worker], name: str
) -> None:
    """What a task's body publishes, plain or in a coroutine, carries the task's id; the task has the event's."""
    start_worker(settings, "shop", "--processes", "1")
    with subscriber(settings.broker_url, settings.namespace, "shop.#") as bound:
        causes = {order: send_task(name, "acme", order) for order in range(5)}
        events = bound.wait_for(5)
    assert {event["body"]["order"]: event["cause"] for event in events} == {
        order: status.id for order, status in causes.items()
    }
    for event in events:
        ended = causes[event["body"]["order"]].wait(WAIT)
        assert (ended.status, ended.result) == (Status.SUCCESS, event["id"])


def test_a_thread_of_ones_own_has_no_cause(settings: Settings, start_worker: Callable[..., Worker]) -> None:
    """A thread that a body has started itself is not known to be the task's: the event arrives without a cause."""
    start_worker(settings, "shop", "--processes", "1")
    with subscriber(settings.broker_url, settings.namespace, "shop.#") as bound:
        assert send_task("shop.events.publish_in_a_thread", "acme", 1).wait(WAIT).status is Status.SUCCESS
        [event] = bound.wait_for(1)
    assert event["cause"] is None


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            ("acme", "core.task.shop.paid.success.v1"),
            EventError,
            "routing key 'core.task.shop.paid.success.v1': what begins with 'core.task' tells how a task has ended, "
            "and is published by workers alone. Choose another first word",
        ),
        (
            ("acme", "shop.order paid"),
            EventError,
            "'shop.order paid' is no routing key: it must be words joined by dots, without spaces, * or #, such as "
            "'shop.order.paid.v1'",
        ),
        (
            ("acme", "shop.#"),
            EventError,
            "'shop.#' is no routing key: it must be words joined by dots, without spaces, * or #, such as "
            "'shop.order.paid.v1'",
        ),
        (
            ("acme", None),
            EventError,
            "None is no routing key: it must be words joined by dots, such as 'shop.order.paid.v1'",
        ),
        (
            ("acme", "shop." + "x" * 251),
            EventError,
            f"routing key 'shop.{'x' * 35}'... is longer than 255 bytes",
        ),
        (
            ("acme", KEY, {"when": {1, 2}}),
            EventError,
            f"event '{KEY}' cannot be published: the body cannot be expressed as JSON: it holds a value of type set: "
            "convert it, such as with sorted(x)",
        ),
        (
            ("acme", KEY, "x" * 1_048_576),
            EventError,
            f"event '{KEY}' cannot be published: the body takes 1,048,578 bytes as JSON and the limit is 1,048,576 "
            "bytes: keep the data where it belongs",
        ),
        (
            (5, KEY),
            ApplicationError,
            "an application is a name or an object with a text `identifier`, and 5 is neither",
        ),
        (("", KEY), ApplicationError, "'' is no application's identifier: it must be printable text"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_is_refused_before_any_connection(
    arguments: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    """Bad input is an error of its own with a helpful message, without a broker."""
    configure(Settings(broker_url="amqp://guest:guest@127.0.0.1:1/", send_timeout=0.5))
    with pytest.raises(error) as caught:
        publish_event(*arguments)
    assert str(caught.value) == message


def test_an_absent_broker_is_an_error_within_the_deadline() -> None:
    """Without a broker the caller hears so, and where it was looked for, when the send timeout is over."""
    configure(Settings(broker_url="amqp://guest:guest@127.0.0.1:1/", send_timeout=0.5))
    begun = time.monotonic()
    with pytest.raises(BrokerUnreachableError, match=r"no RabbitMQ at 127\.0\.0\.1:1 .*LIMETASK_BROKER_URL"):
        publish_event("acme", KEY)
    assert time.monotonic() - begun < 20


def test_a_missing_confirm_is_an_unknown_outcome(settings: Settings) -> None:
    """If the broker was reached and does not answer, the error says that subscribers may have got it, and its id."""
    with proxy_to(settings.broker_url) as (proxy, url):
        configure(replace(settings, broker_url=url, send_timeout=5.0))
        publish_event("acme", KEY, "connects")
        with subscriber(settings.broker_url, settings.namespace, "shop.#") as bound:
            proxy.stall("client")
            with pytest.raises(SendOutcomeUnknownError, match="subscribers may have got event") as caught:
                publish_event("acme", KEY, "unconfirmed")
            [event] = bound.wait_for(1)
        assert event["id"] == caught.value.task_id
        assert event["id"] in str(caught.value)
        proxy.flow()
        close_default_client()


def test_a_lost_confirm_and_no_broker_any_more_is_an_unknown_outcome(settings: Settings) -> None:
    """If the connection is lost before the confirm, and the broker stays away, subscribers may have got the event."""
    with proxy_to(settings.broker_url) as (proxy, url):
        configure(replace(settings, broker_url=url, send_timeout=3.0))
        publish_event("acme", KEY, "connects")
        with ThreadPoolExecutor(1) as thread, subscriber(settings.broker_url, settings.namespace, "shop.#") as bound:
            proxy.stall("client")
            publishing = thread.submit(publish_event, "acme", KEY, "perhaps")
            [event] = bound.wait_for(1)
            proxy.refuse()
            proxy.flow()
            with pytest.raises(SendOutcomeUnknownError) as caught:
                publishing.result(30)
        assert caught.value.task_id == event["id"]
        close_default_client()


def test_a_cut_before_the_confirm_repeats_the_same_event(settings: Settings) -> None:
    """An event that was published again since its confirm was lost has the same id: subscribers can tell."""
    with proxy_to(settings.broker_url) as (proxy, url):
        configure(replace(settings, broker_url=url))
        publish_event("acme", KEY, "connects")
        published: list[str] = []
        publishing = threading.Thread(target=lambda: published.append(publish_event("acme", KEY, "cut")))
        with subscriber(settings.broker_url, settings.namespace, "shop.#") as bound:
            proxy.stall("client")
            publishing.start()
            bound.wait_for(1)
            proxy.cut()
            proxy.flow()
            publishing.join()
            events = bound.wait_for(2)
        assert len(published) == 1
        assert [event["id"] for event in events] == published * 2
        close_default_client()


def test_threads_publish_at_once(settings: Settings) -> None:
    """Many threads share one connection, and every event arrives once with the id that its thread was told."""
    published: list[str] = []

    def publish(thread: int) -> None:
        published.extend(publish_event("acme", KEY, [thread, number]) for number in range(50))

    with subscriber(settings.broker_url, settings.namespace, "shop.#") as bound:
        threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        events = bound.wait_for(400)
    assert sorted(event["id"] for event in events) == sorted(published)
    assert len(set(published)) == 400
    for thread_number in range(8):
        numbers = [event["body"][1] for event in events if event["body"][0] == thread_number]
        assert numbers == list(range(50))
