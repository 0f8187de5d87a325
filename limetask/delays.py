"""Messages that the broker holds until their time has come: no process of ours keeps them, so none loses them."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

from limetask.amqp import Connection
from limetask.errors import UnroutableError
from limetask.message import Envelope
from limetask.topology import DELAY_LEVELS, MAX_KEY_BYTES, Names, delay_topology

MAX_DELAY_SECONDS = 2**DELAY_LEVELS - 1

# With the deaths of its past a message that passes a level once more would be taken for one that goes in circles, and
# the broker up to 3.13 drops those without a word.
_HEADERS_OF_DEATH = ("x-death", "x-first-death-", "x-last-death-")


class Delays:
    """Publishes messages that come to their queue later.

    The levels that a delay needs (see `delay_topology`) are declared before its first message, and again when they
    may be gone: the connection was rebuilt, or the broker had no queue for a message.

    It belongs to its connection: to one asyncio loop, one thread and one process, so make another after a fork.
    """

    def __init__(self, connection: Connection, names: Names) -> None:
        """`connection` stays its owner's, to open and to close; `names` must be of the same namespace."""
        self._connection = connection
        self._names = names
        self._declaring = asyncio.Lock()
        self._declared_levels = 0
        self._declared_in = connection.epoch

    async def publish_until_confirmed(self, seconds: float, queue: str, envelope: Envelope) -> None:
        """Have a message come to `queue` after `seconds`, rounded up to whole ones and at least 1.

        Returns when the broker has confirmed it, however long that takes: it is published again after every reconnect
        and every refusal, which is logged, so that it may come twice, and then the later one is late. `queue` must be
        bound to the exchange of delayed messages, as those of tasks are (see `delayed_binding`); a message whose queue
        is gone when its time has come becomes a dead letter. Headers in which the broker has noted deaths are left out.

        Raises TooLargeForBrokerError for a message that the broker would never take, and ValueError if `seconds` is
        more than MAX_DELAY_SECONDS or no number, or the queue's name is too long.
        """
        delay = whole_seconds(seconds)
        level = _highest_level(delay)
        key = routing_key(delay, queue)
        message = _without_deaths(envelope)

        async def publish() -> None:
            await self._declare(level)
            try:
                await self._connection.publish(self._names.delay(level), key, message)
            except UnroutableError:
                self._declared_levels = 0
                raise

        await self._connection.until_confirmed(publish)

    async def declare(self, seconds: float) -> None:
        """Declare what a delay of `seconds` needs: for who would rather fail than wait until it can be.

        Raises BrokerRefusedError if that is missing and the user may not declare it, ConnectionLostError without a
        connection, and ValueError as `publish_until_confirmed` does.
        """
        await self._declare(_highest_level(whole_seconds(seconds)))

    async def _declare(self, level: int) -> None:
        """Declare all levels up to `level`, once in each epoch of the connection."""
        async with self._declaring:
            epoch = self._connection.epoch
            if epoch == self._declared_in and level < self._declared_levels:
                return
            await self._connection.declare(delay_topology(self._names, level + 1))
            self._declared_levels, self._declared_in = level + 1, epoch


def whole_seconds(seconds: float) -> int:
    """Return a delay in whole seconds, rounded up, at least 1.

    Raises ValueError if it is more than MAX_DELAY_SECONDS, or no number.
    """
    if not seconds <= MAX_DELAY_SECONDS:  # so that NaN is refused too
        raise ValueError(f"a delay of {seconds} s: it may be {MAX_DELAY_SECONDS} s (194 days) at most")
    return math.ceil(max(1, seconds))


def routing_key(seconds: int, queue: str) -> str:
    """Return the key that takes a message through the levels of a delay and then to `queue`.

    Raises ValueError if the queue's name is too long for it.
    """
    key = f"{'.'.join(f'{seconds:0{DELAY_LEVELS}b}')}.{queue}"
    if len(key.encode()) > MAX_KEY_BYTES:
        raise ValueError(f"the name of queue {queue!r} is too long for delayed messages")
    return key


def _highest_level(seconds: int) -> int:
    return seconds.bit_length() - 1


def _without_deaths(envelope: Envelope) -> Envelope:
    if envelope.headers is None:
        return envelope
    # A name that is no UTF-8 arrives as bytes.
    kept = {name: value for name, value in envelope.headers.items() if not str(name).startswith(_HEADERS_OF_DEATH)}
    return replace(envelope, headers=kept)
