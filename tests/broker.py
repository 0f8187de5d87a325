"""Looks into the broker with plain pika, beside limetask's own AMQP core."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pika

from limetask.topology import Names, marker_topology, topology
from tests.waiting import eventually


@contextmanager
def channel_to(broker_url: str) -> Iterator[Any]:
    """A channel of a connection of its own; what is published there is confirmed, else it might be lost on the way."""
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        yield channel
    finally:
        connection.close()


def delete_namespace(broker_url: str, namespace: str) -> None:
    """Delete all queues and exchanges of a namespace."""
    wanted = topology(Names(namespace))
    with channel_to(broker_url) as channel:
        for queue in (*wanted.queues, *marker_topology(Names(namespace)).queues):
            channel.queue_delete(queue.name)
        for exchange in wanted.exchanges:
            channel.exchange_delete(exchange.name)


def declare_namespace(broker_url: str, namespace: str) -> None:
    """Declare the topology, as the first producer or worker would."""
    wanted = topology(Names(namespace))
    with channel_to(broker_url) as channel:
        for exchange in wanted.exchanges:
            channel.exchange_declare(exchange.name, exchange.kind, durable=True, arguments=dict(exchange.arguments))
        for queue in wanted.queues:
            channel.queue_declare(queue.name, durable=True, arguments=dict(queue.arguments))
        for binding in wanted.bindings:
            channel.queue_bind(binding.queue, binding.exchange, binding.routing_key)


def queue_length(broker_url: str, queue: str) -> int:
    """How many messages wait in a queue (those being delivered are not counted)."""
    with channel_to(broker_url) as channel:
        length: int = channel.queue_declare(queue, passive=True).method.message_count
        return length


def consumer_count(broker_url: str, queue: str) -> int:
    """How many consumers a queue has."""
    with channel_to(broker_url) as channel:
        count: int = channel.queue_declare(queue, passive=True).method.consumer_count
        return count


@dataclass(frozen=True)
class Letter:
    """A message that was taken off a queue."""

    routing_key: str
    headers: Mapping[str, Any]
    body: bytes
    message_id: str | None = None

    @property
    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.body)
        return event


def take_all(broker_url: str, queue: str, count: int, timeout: float = 20.0) -> list[Letter]:
    """Take `count` messages off a queue."""
    letters: list[Letter] = []
    deadline = time.monotonic() + timeout
    with channel_to(broker_url) as channel:
        for method, properties, body in channel.consume(queue, auto_ack=True, inactivity_timeout=0.1):
            if method is not None:
                letters.append(Letter(method.routing_key, properties.headers or {}, body, properties.message_id))
            if len(letters) == count:
                return letters
            assert time.monotonic() < deadline, f"{queue} held {len(letters)} messages, not {count}"
    raise AssertionError("unreachable")


class Subscriber:
    """Another program that is bound to completion events."""

    def __init__(self, broker_url: str, namespace: str, pattern: str) -> None:
        self.letters: list[Letter] = []
        self._connection = pika.BlockingConnection(pika.URLParameters(broker_url))
        channel = self._connection.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, Names(namespace).events_exchange, pattern)
        channel.basic_consume(queue, self._on_message, auto_ack=True)
        self._channel = channel
        self._thread = threading.Thread(target=channel.start_consuming, daemon=True)
        self._thread.start()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [letter.event for letter in list(self.letters)]

    def wait_for(self, count: int, timeout: float = 30.0) -> list[dict[str, Any]]:
        """Return all events once there are `count`."""
        eventually(lambda: len(self.letters) >= count, timeout, f"{count} events, there are {len(self.letters)}")
        return self.events

    def wait_until(self, condition: Callable[[list[dict[str, Any]]], bool], timeout: float = 30.0) -> None:
        eventually(lambda: condition(self.events), timeout)

    def close(self) -> None:
        self._connection.add_callback_threadsafe(self._channel.stop_consuming)
        self._thread.join(10)
        self._connection.close()

    def _on_message(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self.letters.append(Letter(method.routing_key, properties.headers or {}, body))


@contextmanager
def subscriber(broker_url: str, namespace: str, pattern: str = "core.task.#") -> Iterator[Subscriber]:
    """Bind a queue to the events of a namespace that has been declared."""
    declare_namespace(broker_url, namespace)
    bound = Subscriber(broker_url, namespace, pattern)
    try:
        yield bound
    finally:
        bound.close()
