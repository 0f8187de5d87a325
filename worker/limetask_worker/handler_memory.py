"""What one event handler has in hand here and what has ended here, so that nothing begins again that comes again."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from limetask.amqp import Connection, Delivery
from limetask.codec import count_in
from limetask.message import Envelope

Key = tuple[str | None, int, int]


@dataclass(slots=True)
class Arrived:
    """An event that is here to be handled, with every delivery of it: each lost connection brings another.

    `received_at` is in seconds of time.monotonic. `key` is the same for all deliveries of one message.
    """

    deliveries: list[Delivery]
    key: Key = field(init=False)
    received_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.key = _key(self.envelope)

    @property
    def envelope(self) -> Envelope:
        return self.deliveries[0].envelope

    @property
    def age(self) -> float:
        """For how many seconds it has been here."""
        return time.monotonic() - self.received_at


class HandlerMemory:
    """Tells deliveries that come again, since their connection was lost, from new ones.

    It remembers the ends of as many messages as may be unacked at a time: these alone can come again.
    """

    def __init__(self, connection: Connection, size: int) -> None:
        self._connection = connection
        self._size = size
        self._in_hand: dict[Key, Arrived] = {}
        self._ended: dict[Key, None] = {}

    @property
    def in_hand(self) -> int:
        """How many events have begun and not ended."""
        return len(self._in_hand)

    def holds(self, arrived: Arrived) -> bool:
        """Return True while an event is ours to ack."""
        return any(map(self._connection.holds, arrived.deliveries))

    def take_in_hand(self, arrived: Arrived) -> None:
        self._in_hand[arrived.key] = arrived

    def let_go(self, arrived: Arrived) -> None:
        """Ack an event that has ended, and remember it: the ack may not arrive."""
        for delivery in arrived.deliveries:
            self._connection.ack(delivery)
        if self._in_hand.get(arrived.key) is arrived:
            del self._in_hand[arrived.key]
        self._ended[arrived.key] = None
        while len(self._ended) > self._size:
            del self._ended[next(iter(self._ended))]

    def reject(self, arrived: Arrived) -> None:
        """Have the broker make a dead letter of an event. Should that not arrive, the event comes and is tried anew."""
        for delivery in arrived.deliveries:
            self._connection.reject(delivery)
        if self._in_hand.get(arrived.key) is arrived:
            del self._in_hand[arrived.key]

    def recognises(self, arrived: Arrived) -> bool:
        """Return True, and see to it, if this is delivered again and is in hand here or has ended here."""
        [delivery] = arrived.deliveries
        if not delivery.redelivered:
            return False
        known = self._in_hand.get(arrived.key)
        if known is not None:
            known.deliveries.append(delivery)
        elif arrived.key in self._ended:
            self._connection.ack(delivery)
        else:
            return False
        return True


def retries_of(envelope: Envelope) -> int:
    """Return how often an event has been tried again."""
    return count_in(envelope, "retry")


def _key(envelope: Envelope) -> Key:
    # A retry, also one of a dead letter, is another message, though the event in it is the same.
    return envelope.message_id, retries_of(envelope), hash(envelope.body)
