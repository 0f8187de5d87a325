"""Exchanges, queues and bindings, as data: whoever connects first declares them, identical everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, get_args

QoS = Literal["asap", "default", "background"]
QOS_CATEGORIES: tuple[QoS, ...] = get_args(QoS)
"""From the most to the least urgent; each has a queue of its own."""

MAX_KEY_BYTES = 255
"""How long a routing key may be: AMQP has no longer ones."""

DELAY_LEVELS = 24
"""Level n holds messages for 2**n seconds, so all levels together hold them for up to 194 days."""

# Before RabbitMQ 4.3 every return of a message counts as a delivery, that of a clean shutdown too. limetask counts
# attempts itself; the broker's limit is the safety net under it, so it is generous.
_TASK_DELIVERY_LIMIT = 100
_RESULTS_DELIVERY_LIMIT = 10_000
# Looking at a dead letter returns it to its queue, so the queue of dead letters must never run into a limit.
# Without one, 4.0 and later would take 20.
_DEAD_DELIVERY_LIMIT = 1_000_000_000
# Looking at the marker returns it to its queue as well.
_MARKER_DELIVERY_LIMIT = 1_000_000_000
# Nobody consumes from the levels of a delay; looking into one must not send a message on before its time.
_DELAY_DELIVERY_LIMIT = 1_000_000_000

# A full queue refuses what is published, and the publisher keeps it and tries again: nothing is dropped. Operators set
# lower limits with a policy: lengths only, since on a quorum queue a policy's overflow goes before the queue's.
_RESULTS_MAX_BYTES = 8 * 1024**3
_DEAD_MAX_BYTES = 2 * 1024**3
_HANDLER_MAX_BYTES = 1024**3


@dataclass(frozen=True, slots=True)
class Exchange:
    name: str
    kind: Literal["direct", "topic", "fanout"]
    arguments: Mapping[str, str] = field(default_factory=dict)


_Arguments = dict[str, str | int | bool]


# A daemon that loses its connection finds its queue again for this long.
_BROADCAST_ARGUMENTS: _Arguments = {
    "x-queue-type": "classic",
    "x-expires": 60_000,
    "x-overflow": "drop-head",
    "x-max-length-bytes": 64 * 1024**2,
}


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
class ExchangeBinding:
    """What one exchange hands on to another, `destination`."""

    destination: str
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
    def completions_exchange(self) -> str:
        """Where the ends of tasks are published: from here they go to the recorder and to the exchange of events."""
        return f"{self.namespace}.completions"

    @property
    def results_queue(self) -> str:
        return f"{self.namespace}.results"

    def handler_queue(self, name: str) -> str:
        """Return the queue of a shared event handler."""
        return f"{self.namespace}.handlers.{name}"

    def is_handler_queue(self, queue: str) -> bool:
        """Return True for the queue of an event handler, shared or not."""
        return queue.startswith(self.handler_queue(""))

    @property
    def dead_exchange(self) -> str:
        return f"{self.namespace}.dead"

    @property
    def dead_queue(self) -> str:
        return f"{self.namespace}.dead"

    @property
    def marker_queue(self) -> str:
        """The queue of the message with which it is tried whether messages stay."""
        return f"{self.namespace}.marker"

    @property
    def delayed_exchange(self) -> str:
        """Where a message comes out when its delay is over."""
        return f"{self.namespace}.delayed"

    def delay(self, level: int) -> str:
        """Return the name of the exchange of one level, which is that of its queue too."""
        return f"{self.namespace}.delay.{level}"

    def reply_key(self, token: str) -> str:
        """Return the key under which one producer process hears of the ends of the tasks that it sent."""
        return f"{self.namespace}.reply.{token}"

    def is_reply_key(self, key: str) -> bool:
        """Return True for a key that `reply_key` could have made; a message may ask for no other."""
        return len(key) <= MAX_KEY_BYTES and _is_reply_key(self.namespace, key)


# Each task has one, and there are as many as processes that send. Longer texts, which a record may hold, must not be
# kept here.
@lru_cache(maxsize=1024)
def _is_reply_key(namespace: str, key: str) -> bool:
    prefix = Names(namespace).reply_key("")
    return key.startswith(prefix) and key[len(prefix) :].isalnum()


@dataclass(frozen=True, slots=True)
class Topology:
    """What must exist on the broker before the first message that needs it."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]
    exchange_bindings: tuple[ExchangeBinding, ...] = ()

    def __add__(self, more: Topology) -> Topology:
        return Topology(
            self.exchanges + more.exchanges,
            self.queues + more.queues,
            self.bindings + more.bindings,
            self.exchange_bindings + more.exchange_bindings,
        )


def topology(names: Names) -> Topology:
    """Return what everybody needs in one namespace: all but the levels of delays."""
    task_queues = tuple(_task_queue(names, qos) for qos in QOS_CATEGORIES)
    return Topology(
        exchanges=(
            Exchange(names.tasks_exchange, "direct"),
            Exchange(names.events_exchange, "topic"),
            Exchange(names.completions_exchange, "fanout"),
            Exchange(names.dead_exchange, "fanout"),
            Exchange(names.delayed_exchange, "topic", {"alternate-exchange": names.dead_exchange}),
        ),
        queues=(*task_queues, _results_queue(names), _dead_queue(names)),
        bindings=(
            *(Binding(queue.name, names.tasks_exchange, queue.name) for queue in task_queues),
            *(delayed_binding(names, queue.name) for queue in task_queues),
            Binding(names.dead_queue, names.dead_exchange, ""),
        ),
    ) + completion_bindings(names)


def handler_topology(names: Names, name: str, bindings: Iterable[str]) -> Topology:
    """Return what a shared event handler needs beside `topology`: its queue, bound to the events that it wants."""
    queue = _handler_queue(names, name)
    events = (Binding(queue.name, names.events_exchange, key) for key in sorted(bindings))
    return Topology((), (queue,), (*events, delayed_binding(names, queue.name)))


def broadcast_topology(names: Names, name: str, daemon: str, bindings: Iterable[str]) -> Topology:
    """Return the same for an event handler that every daemon has: a queue that goes soon after the daemon has gone."""
    queue = Queue(f"{names.handler_queue(name)}.{daemon}", _BROADCAST_ARGUMENTS | _to_dead_letters(names))
    events = (Binding(queue.name, names.events_exchange, key) for key in sorted(bindings))
    return Topology((), (queue,), (*events, delayed_binding(names, queue.name)))


def completion_bindings(names: Names) -> Topology:
    """Return by which ways the ends of tasks come to the recorder and to the subscribers.

    Not by the exchange of events alone: to match its patterns takes the broker about as long as to store the message.
    Two ways that mean the same, and a message comes once: should one be taken away, none is missed until the recorder
    has declared it anew.
    """
    keys = ("", "again")
    return Topology(
        exchanges=(),
        queues=(),
        bindings=tuple(Binding(names.results_queue, names.completions_exchange, key) for key in keys),
        exchange_bindings=tuple(
            ExchangeBinding(names.events_exchange, names.completions_exchange, key) for key in keys
        ),
    )


def delay_topology(names: Names, levels: int) -> Topology:
    """Return what delays of less than 2**`levels` seconds need beside `topology`.

    A delay's seconds are the sum of powers of two: a message waits in the queue of each level whose bit is set, the
    highest first, and passes by all others. Its routing key is the bits as words, then the queue where it is to go
    (`limetask.delays.routing_key` makes it). Each level's exchange reads its own bit: 1 leads into the level's queue,
    which hands over to the next level when the time is over; 0 leads to the next level at once. Below level 0 is the
    exchange of delayed messages, which reads the queue's name. A message whose queue is gone becomes a dead letter.
    """
    delays = [names.delay(level) for level in range(levels)]
    return Topology(
        exchanges=tuple(Exchange(delay, "topic") for delay in delays),
        queues=tuple(_delay_queue(names, level) for level in range(levels)),
        bindings=tuple(Binding(delay, delay, _bit_pattern(level, 1)) for level, delay in enumerate(delays)),
        exchange_bindings=tuple(
            ExchangeBinding(_below(names, level), delay, _bit_pattern(level, 0)) for level, delay in enumerate(delays)
        ),
    )


def marker_topology(names: Names) -> Topology:
    """Return the queue of the marker, which is not part of `topology` (see `limetask.marker`)."""
    arguments = _quorum(_MARKER_DELIVERY_LIMIT) | {"x-overflow": "reject-publish"}
    return Topology((), (Queue(names.marker_queue, arguments),), ())


def delayed_binding(names: Names, queue: str) -> Binding:
    """Return the binding that a queue needs so that delayed messages can go there: whoever declares it binds it.

    No other such queue's name may end with a dot and this one's, or both get the message.
    """
    return Binding(queue, names.delayed_exchange, f"#.{queue}")


def _bit_pattern(level: int, bit: int) -> str:
    """Return the pattern of routing keys in which the word of a level is `bit`; the highest level's is the first."""
    return "*." * (DELAY_LEVELS - 1 - level) + f"{bit}.#"


def _below(names: Names, level: int) -> str:
    """Return the exchange to which a message goes from a level."""
    return names.delay(level - 1) if level else names.delayed_exchange


def _delay_queue(names: Names, level: int) -> Queue:
    held: _Arguments = {"x-message-ttl": 2**level * 1000}
    dead_lettering = _dead_lettering(_below(names, level))
    return Queue(names.delay(level), _quorum(_DELAY_DELIVERY_LIMIT) | dead_lettering | held)


def _task_queue(names: Names, qos: QoS) -> Queue:
    return Queue(names.task_queue(qos), _quorum(_TASK_DELIVERY_LIMIT) | _dead_lettering(names.dead_exchange))


def _results_queue(names: Names) -> Queue:
    limits: _Arguments = {"x-single-active-consumer": True, "x-max-length-bytes": _RESULTS_MAX_BYTES}
    dead_lettering = _dead_lettering(names.dead_exchange)
    return Queue(names.results_queue, _quorum(_RESULTS_DELIVERY_LIMIT) | dead_lettering | limits)


def _handler_queue(names: Names, name: str) -> Queue:
    # A handler that nobody runs any more must not keep all others, and the recorder, from their events: a full queue
    # hands its oldest event to the dead letters instead of refusing the newest.
    limits: _Arguments = {"x-overflow": "drop-head", "x-max-length-bytes": _HANDLER_MAX_BYTES}
    return Queue(names.handler_queue(name), _quorum(_TASK_DELIVERY_LIMIT) | limits | _to_dead_letters(names))


def _to_dead_letters(names: Names) -> _Arguments:
    return {"x-dead-letter-exchange": names.dead_exchange}


def _dead_queue(names: Names) -> Queue:
    limits: _Arguments = {"x-overflow": "reject-publish", "x-max-length-bytes": _DEAD_MAX_BYTES}
    return Queue(names.dead_queue, _quorum(_DEAD_DELIVERY_LIMIT) | limits)


def _quorum(delivery_limit: int) -> _Arguments:
    return {"x-queue-type": "quorum", "x-delivery-limit": delivery_limit}


def _dead_lettering(exchange: str) -> _Arguments:
    # At-least-once needs reject-publish, or the broker falls back to at-most-once without a word.
    return {
        "x-dead-letter-exchange": exchange,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
