"""What a consumer has in hand and what it has ended, so that nothing begins again that is delivered again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from limetask import clock
from limetask.codec import count_in
from limetask.message import Envelope

Key = tuple[str | None, int, int]


class AnyDelivery(Protocol):
    """A message as one of the client libraries delivered it."""

    @property
    def envelope(self) -> Envelope: ...

    @property
    def redelivered(self) -> bool: ...


D = TypeVar("D", bound=AnyDelivery)
AckedD = TypeVar("AckedD", bound=AnyDelivery, contravariant=True)


class Acks(Protocol[AckedD]):
    """What acks deliveries, and knows which can still be acked."""

    def holds(self, delivery: AckedD, /) -> bool: ...

    def ack(self, delivery: AckedD, /) -> None: ...


@dataclass(slots=True)
class Arrived(Generic[D]):
    """A message that is here to be handled, with every delivery of it: each lost connection brings another.

    `received_at` is in seconds of limetask.clock. `key` is the same for all deliveries of one message.
    """

    deliveries: list[D]
    key: Key = field(init=False)
    received_at: float = field(default_factory=clock.now)

    def __post_init__(self) -> None:
        self.key = _key(self.envelope)

    @property
    def envelope(self) -> Envelope:
        return self.deliveries[0].envelope

    @property
    def age(self) -> float:
        """For how many seconds it has been here."""
        return clock.now() - self.received_at


class DeliveryMemory(Generic[D]):
    """Tells deliveries that come again, since their connection was lost, from new ones.

    It remembers the ends of `size` messages: as many as may be unacked at a time, since these alone can come again.
    """

    def __init__(self, acks: Acks[D], size: int) -> None:
        self._acks = acks
        self._size = size
        self._in_hand: dict[Key, Arrived[D]] = {}
        self._ended: dict[Key, None] = {}

    @property
    def in_hand(self) -> int:
        """How many messages have begun and not ended."""
        return len(self._in_hand)

    def holds(self, arrived: Arrived[D]) -> bool:
        """Return True while a message is ours to ack."""
        return any(map(self._acks.holds, arrived.deliveries))

    def take_in_hand(self, arrived: Arrived[D]) -> None:
        self._in_hand[arrived.key] = arrived

    def let_go(self, arrived: Arrived[D]) -> None:
        """Ack a message that has ended, and remember it: the ack may not arrive."""
        for delivery in arrived.deliveries:
            self._acks.ack(delivery)
        self.forget(arrived)
        self._ended[arrived.key] = None
        while len(self._ended) > self._size:
            del self._ended[next(iter(self._ended))]

    def forget(self, arrived: Arrived[D]) -> None:
        """Let a message out of hand that is somebody else's now: should it come again, it begins again."""
        if self._in_hand.get(arrived.key) is arrived:
            del self._in_hand[arrived.key]

    def recognises(self, arrived: Arrived[D]) -> bool:
        """Return True, and see to it, if this is delivered again and is in hand here or has ended here."""
        [delivery] = arrived.deliveries
        if not delivery.redelivered:
            return False
        known = self._in_hand.get(arrived.key)
        if known is not None:
            known.deliveries.append(delivery)
        elif arrived.key in self._ended:
            self._acks.ack(delivery)
        else:
            return False
        return True


def retries_of(envelope: Envelope) -> int:
    """Return how often an event has been tried again."""
    return count_in(envelope, "retry")


def _key(envelope: Envelope) -> Key:
    # A retry, also one of a dead letter, is another message, though the event in it is the same.
    return envelope.message_id, retries_of(envelope), hash(envelope.body)
