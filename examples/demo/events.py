"""The events that follow tasks. Any program that knows AMQP can hear of them: nothing of limetask is needed for it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pika

from lime_task import TaskStatus

from . import WAIT_SECONDS, DemoError


@dataclass(frozen=True)
class Event:
    """The event that follows a task: its routing key, and what its JSON says."""

    routing_key: str
    body: dict[str, Any]

    @property
    def seconds_after_sending(self) -> float:
        """How long after its sending the task ended."""
        sent_at, finished_at = (datetime.fromisoformat(self.body[name]) for name in ("sent_at", "finished_at"))
        return (finished_at - sent_at).total_seconds()


@dataclass(frozen=True)
class Listener:
    """Hears of every task's end."""

    channel: Any
    queue: str
    awaited: set[str] = field(default_factory=set)
    """The ids of the tasks whose events were asked for."""
    heard: Counter[str] = field(default_factory=Counter)
    """How many events each task had."""

    def events_of(self, statuses: Collection[TaskStatus]) -> Iterator[Event]:
        """Give the events of these tasks as they arrive."""
        missing = {status.id for status in statuses}
        self.awaited.update(missing)
        for event in self._events(WAIT_SECONDS):
            if event.body["task_id"] in missing:
                missing.remove(event.body["task_id"])
                yield event
            if not missing:
                return
        raise DemoError(f"the events of {len(missing)} tasks did not arrive within {WAIT_SECONDS} s")

    def take_the_rest(self) -> None:
        """Count what nobody has asked for."""
        for _event in self._events(0.5):
            pass

    def _events(self, timeout: float) -> Iterator[Event]:
        """Give events until none has arrived for `timeout` seconds."""
        for method, _properties, body in self.channel.consume(self.queue, auto_ack=True, inactivity_timeout=timeout):
            if method is None:
                return
            event = Event(method.routing_key, json.loads(body))
            self.heard[event.body["task_id"]] += 1
            yield event


@contextmanager
def listen(broker_url: str, exchange: str) -> Iterator[Listener]:
    """Give a listener that hears of every task from now on."""
    parameters = pika.URLParameters(broker_url)
    parameters.heartbeat = 0  # which nobody would send while the demo does something else than listening
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.exchange_declare(exchange, "topic", durable=True)
        channel.queue_bind(queue, exchange, routing_key="core.task.#")
        yield Listener(channel, queue)
