"""Exchanges, queues and bindings, as data: whoever connects first declares them, identical everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

QoS = Literal["asap", "default", "background"]
QOS_CATEGORIES: tuple[QoS, ...] = get_args(QoS)
"""From the most to the least urgent; each has a queue of its own."""

# Before RabbitMQ 4.3 every return of a message counts as a delivery, that of a clean shutdown too. limetask counts
# attempts itself; the broker's limit is the safety net under it, so it is generous.
_TASK_DELIVERY_LIMIT = 100
_RESULTS_DELIVERY_LIMIT = 10_000
# Looking at a dead letter returns it to its queue, so the queue of dead letters must never run into a limit.
# Without one, 4.0 and later would take 20.
_DEAD_DELIVERY_LIMIT = 1_000_000_000

# A full queue refuses what is published, and the publisher keeps it and tries again: nothing is dropped. Operators set
# lower limits with a policy.
_RESULTS_MAX_BYTES = 8 * 1024**3
_DEAD_MAX_BYTES = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class Exchange:
    name: str
    kind: Literal["direct", "topic", "fanout"]


_Arguments = dict[str, str | int | bool]


@dataclass(frozen=True, slots=True)
class Queue:
    name: str
    arguments: Mapping[str, str | int | bool]


@dataclass(frozen=True, slots=True)
class Binding:
    queue: str
    exchange: str
    routing_key: str


@dataclass(frozen=True, slots=True)
class Names:
    """What everything on the broker is called in one namespace."""

    namespace: str

    @property
    def tasks_exchange(self) -> str:
        return f"{self.namespace}.tasks"

    def task_queue(self, qos: str) -> str:
        return f"{self.namespace}.tasks.{qos}"

    @property
    def events_exchange(self) -> str:
        return f"{self.namespace}.events"

    @property
    def results_queue(self) -> str:
        return f"{self.namespace}.results"

    @property
    def dead_exchange(self) -> str:
        return f"{self.namespace}.dead"

    @property
    def dead_queue(self) -> str:
        return f"{self.namespace}.dead"

    def reply_key(self, token: str) -> str:
        """Return the key under which one producer process hears of the ends of the tasks that it sent."""
        return f"{self.namespace}.reply.{token}"

    def is_reply_key(self, key: str) -> bool:
        """Return True for a key that `reply_key` could have made; a message may ask for no other."""
        prefix = self.reply_key("")
        return key.startswith(prefix) and key[len(prefix) :].isalnum()


@dataclass(frozen=True, slots=True)
class Topology:
    """All that must exist on the broker before the first message."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]


def topology(names: Names) -> Topology:
    """Return the whole topology of one namespace."""
    task_queues = tuple(_task_queue(names, qos) for qos in QOS_CATEGORIES)
    return Topology(
        exchanges=(
            Exchange(names.tasks_exchange, "direct"),
            Exchange(names.events_exchange, "topic"),
            Exchange(names.dead_exchange, "fanout"),
        ),
        queues=(*task_queues, _results_queue(names), _dead_queue(names)),
        bindings=(
            *(Binding(queue.name, names.tasks_exchange, queue.name) for queue in task_queues),
            Binding(names.results_queue, names.events_exchange, "core.task.#"),
            Binding(names.dead_queue, names.dead_exchange, ""),
        ),
    )


def _task_queue(names: Names, qos: QoS) -> Queue:
    return Queue(names.task_queue(qos), _quorum(_TASK_DELIVERY_LIMIT) | _dead_lettering(names))


def _results_queue(names: Names) -> Queue:
    limits: _Arguments = {"x-single-active-consumer": True, "x-max-length-bytes": _RESULTS_MAX_BYTES}
    return Queue(names.results_queue, _quorum(_RESULTS_DELIVERY_LIMIT) | _dead_lettering(names) | limits)


def _dead_queue(names: Names) -> Queue:
    limits: _Arguments = {"x-overflow": "reject-publish", "x-max-length-bytes": _DEAD_MAX_BYTES}
    return Queue(names.dead_queue, _quorum(_DEAD_DELIVERY_LIMIT) | limits)


def _quorum(delivery_limit: int) -> _Arguments:
    return {"x-queue-type": "quorum", "x-delivery-limit": delivery_limit}


def _dead_lettering(names: Names) -> _Arguments:
    # At-least-once needs reject-publish, or the broker falls back to at-most-once without a word.
    return {
        "x-dead-letter-exchange": names.dead_exchange,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
