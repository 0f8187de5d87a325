"""The queue of dead letters: taking what is in it, and giving it back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from types import TracebackType
from typing import Any

from limetask.amqp import Connection, Delivery, Subscription
from limetask.dead_letters.letter import Found, opened
from limetask.errors import BrokerError, ConnectionLostError
from limetask.settings import Settings
from limetask.topology import Names

# AMQP has 16 bits for what one consumer may hold. Should there be more letters, another consumer holds the next ones.
_MOST_HELD_BY_A_CONSUMER = 65_535
_IDLE_SECONDS = 0.2
_POLL_SECONDS = 0.05


class DeadQueue:
    """The queue of dead letters, read once from its front to its end.

    Whatever is read is held until the end, so that nothing comes twice, and goes back when the connection is closed,
    unless it was removed. That keeps the order: the broker takes back at once all that one consumer holds. What is
    returned piece by piece, with nacks, comes back in any order.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._names = Names(settings.namespace)
        self._connection = Connection(settings, "dead letters")
        self._arrived: asyncio.Queue[Delivery] = asyncio.Queue()
        self._held = 0
        self._room = 0
        self._first: Delivery | None = None
        self.length = 0

    async def __aenter__(self) -> DeadQueue:
        try:
            await self._connection.ready(self._settings.connect_timeout)
            self.length = await self._length_when_nobody_reads()
        except BaseException:
            await to_its_end(self._connection.close())
            raise
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await to_its_end(self._connection.close())

    async def letters(self) -> AsyncIterator[Found]:
        """Read as many letters as there were at the start: what dies meanwhile is not seen.

        Raises ConnectionLostError if the connection is lost: the broker has taken back what is held here.
        """
        for _ in range(self.length):
            delivery = await self._next()
            if delivery is None:
                return
            yield opened(delivery, self._names)

    def remove(self, found: Found) -> None:
        """Take a letter out of the queue for good. Raises ConnectionLostError if it is not held any more."""
        if not self._connection.holds(found.delivery):
            raise _lost()
        self._connection.ack(found.delivery)
        self._held -= 1

    async def check(self) -> None:
        """Return if the broker has got all that was removed so far; raises ConnectionLostError if that is unknown."""
        await self._counts()
        self._check_held()

    async def _length_when_nobody_reads(self) -> int:
        """Return the queue's length; what somebody else holds is not counted, so let another look end before."""
        deadline = asyncio.get_running_loop().time() + self._settings.send_timeout
        while True:
            length, consumers = await self._counts()
            if not consumers and (length or await self._is_empty()):
                return length
            if asyncio.get_running_loop().time() > deadline:
                raise self._is_read() if consumers else self._is_silent()
            await asyncio.sleep(_POLL_SECONDS)

    def _is_read(self) -> BrokerError:
        return BrokerError(
            f"another program consumes from {self._names.dead_queue} and may hold letters of it: wait for it "
            "to end, or stop it"
        )

    async def _is_empty(self) -> bool:
        """Ask the queue itself: the broker counts nothing in a queue whose leader does not answer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.send_timeout):
                return await self._connection.is_empty(self._names.dead_queue)
        return False

    def _is_stuck(self, waiting: int) -> BrokerError:
        return BrokerError(f"the broker delivers nothing from {self._names.dead_queue}, which holds {waiting}")

    def _is_silent(self) -> BrokerError:
        return BrokerError(
            f"{self._names.dead_queue} does not answer, so it is not known what is in it: try again. "
            f"`rabbitmq-queues quorum_status {self._names.dead_queue}` shows whether it has a leader"
        )

    async def _counts(self) -> tuple[int, int]:
        try:
            async with asyncio.timeout(self._settings.send_timeout):
                return await self._connection.queue_counts(self._names.dead_queue)
        except TimeoutError:
            raise ConnectionLostError(f"the broker has not answered for {self._settings.send_timeout:g} s") from None

    async def _next(self) -> Delivery | None:
        """Return the next letter; None if there is none, since another program has taken it."""
        deadline = asyncio.get_running_loop().time() + self._settings.send_timeout
        while True:
            await self._make_room()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_IDLE_SECONDS):
                    return self._checked(await self._arrived.get())
            self._check_held()
            waiting, _ = await self._counts()
            if waiting == 0 and await self._is_empty() and self._arrived.empty():
                return None
            if asyncio.get_running_loop().time() > deadline and self._arrived.empty():
                raise self._is_stuck(waiting) if waiting else self._is_silent()

    async def _make_room(self) -> None:
        if self._arrived.empty() and self._held >= self._room:
            prefetch = min(self.length, _MOST_HELD_BY_A_CONSUMER)
            self._room += prefetch
            await self._connection.consume(Subscription(self._names.dead_queue, prefetch, self._on_delivery))

    def _on_delivery(self, delivery: Delivery) -> None:
        self._held += 1
        self._arrived.put_nowait(delivery)

    def _checked(self, delivery: Delivery) -> Delivery:
        """Return a delivery of the first connection; one of a later connection may have been seen before."""
        if self._first is None:
            self._first = delivery
        self._check_held()
        return delivery

    def _check_held(self) -> None:
        # An ack makes no difference here: it is asked whether the connection is the one that all came in.
        if self._first is not None and not self._connection.holds(self._first):
            raise _lost()


async def to_its_end(cleaning: Coroutine[Any, Any, None]) -> None:
    """Clean up, also if Ctrl-C comes in the middle of it."""
    cleaned = asyncio.ensure_future(cleaning)
    try:
        await asyncio.shield(cleaned)
    except asyncio.CancelledError:
        await asyncio.wait([cleaned])
        raise


def _lost() -> ConnectionLostError:
    return ConnectionLostError("the connection to the broker was lost: the dead letters are back in their queue")
