"""What is consumed from where, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from limetask.message import Envelope
from limetask.value import value


@value
class Delivery:
    """One message as the broker delivered it; `tag` and `epoch` are what its ack needs.

    `exchange` is where it was published last, by its sender or by the queue that it died in, as bytes: hardly anybody
    wants to know. It is empty for the default one, and if it is not told.
    """

    tag: int
    epoch: int
    queue: str
    redelivered: bool
    envelope: Envelope
    exchange: bytes = b""


@dataclass(frozen=True, slots=True, eq=False)
class Subscription:
    """A queue to consume from, renewed in every epoch. Each is its own: two that look the same are not equal."""

    queue: str
    prefetch: int
    on_delivery: Callable[[Delivery], None]


@dataclass(frozen=True, slots=True)
class ReplyQueue:
    """A queue of this connection alone, gone with it, that gets what is published under `routing_key`.

    It holds `max_length` messages and drops the oldest: what it carries is only ever a hint.
    """

    exchange: str
    routing_key: str
    max_length: int
    on_delivery: Callable[[Delivery], None]
