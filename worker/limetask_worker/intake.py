"""Lets deliveries come in as fast as tasks begin, without hoarding what another worker could run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from limetask.amqp import Connection, Delivery, Subscription
from limetask.errors import BrokerError
from limetask.topology import Names, QoS
from limetask_worker.delivery_lag import DeliveryLag

logger = logging.getLogger(__name__)

# So long may a message wait here for a slot before it goes back to its queue.
_PATIENCE_SECONDS = 0.5
# So much of each queue may be here, as far as the sizes of the last messages tell.
_MOST_BYTES = 32 * 1024**2
# The share of the newest message in the average size of all.
_WEIGHT = 0.1
_RETRY_SECONDS = 0.2
# A node without a majority of its cluster may never answer.
_CANCEL_SECONDS = 5.0


class Intake:
    """Has the broker push messages while slots become free quickly, and pulls one a free slot while they do not.

    A pushed message that must wait goes back to its queue once, when pushing ends. A pulled one never does: up to
    RabbitMQ 4.2 each return counts as a delivery, and there is a limit to them. Of large messages fewer are pushed.
    """

    def __init__(
        self,
        connection: Connection,
        names: Names,
        queues: Sequence[QoS],
        fewest: int,
        most: int,
        admit: Callable[[QoS, Delivery, DeliveryLag], None],
        look_again: Callable[[], None],
        give_back: Callable[[], None],
    ) -> None:
        """Between `fewest` and `most` messages of each queue may be here unacked; `admit` takes each, and its lag.

        `look_again` is called when it can be told anew whether there is room, `give_back` when a message has waited
        here for a slot for too long.
        """
        self._connection = connection
        self._names = names
        self._queues = queues
        self._fewest = fewest
        self._most = most
        self._prefetch = most
        self._message_bytes = 0.0
        self._admit = admit
        self._lags = {qos: DeliveryLag() for qos in queues}
        self._look_again = look_again
        self._give_back = give_back
        self._is_pushed = False
        self._is_stopped = False
        self._is_closed = False
        self._switching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Have messages pushed, now and after every reconnect."""
        await self._push()

    async def stop(self) -> None:
        """Let nothing more in, whether the broker answers or not."""
        self._is_stopped = True
        if self._switching is not None:
            await asyncio.wait([self._switching], timeout=_CANCEL_SECONDS)
        await self._cancel_consumers()
        self._is_closed = True

    def has_room(self, *, is_quick: bool) -> None:
        """Say that a slot is free and nothing waits for it; `is_quick` if slots become free quickly now."""
        if self._is_pushed:
            return
        if is_quick:
            logger.debug("slots become free quickly again: having messages pushed")
        self._switch(self._push() if is_quick else self._pull())

    def note_longest_wait(self, seconds: float) -> None:
        """Hear now and then for how long a message has waited here for a slot."""
        if not self._is_pushed:
            return
        if seconds > _PATIENCE_SECONDS:
            self._switch(self._push_no_more())
        elif not self._prefetch / 2 <= self._wanted_prefetch() <= self._prefetch * 2:
            self._switch(self._push_anew())

    def _wanted_prefetch(self) -> int:
        affordable = int(_MOST_BYTES / max(self._message_bytes, 1.0))
        return max(self._fewest, min(self._most, affordable))

    def _on_pushed(self, qos: QoS, delivery: Delivery) -> None:
        lag = self._lags[qos]
        lag.note(self._connection.connected_at)
        self._take(qos, delivery, lag)

    def _take(self, qos: QoS, delivery: Delivery, lag: DeliveryLag) -> None:
        if self._is_closed:
            self._connection.give_back(delivery)
            return
        self._message_bytes += _WEIGHT * (len(delivery.envelope.body) - self._message_bytes)
        self._admit(qos, delivery, lag)

    def _switch(self, work: Coroutine[Any, Any, None]) -> None:
        if self._is_stopped or self._switching is not None:
            work.close()  # `look_again` follows
            return
        self._switching = asyncio.ensure_future(work)
        self._switching.add_done_callback(self._on_switched)

    def _on_switched(self, switching: asyncio.Task[None]) -> None:
        self._switching = None
        switching.result()
        self._look_again()

    async def _push_no_more(self) -> None:
        self._is_pushed = False
        logger.debug("all slots are busy for long: taking one message a free slot from now on")
        await self._cancel_consumers()
        self._give_back()

    async def _push_anew(self) -> None:
        """Have another number of messages pushed: a quorum queue fixes it when its consumer begins."""
        await self._cancel_consumers()
        await self._push()

    async def _cancel_consumers(self) -> None:
        try:
            async with asyncio.timeout(_CANCEL_SECONDS):
                await self._connection.cancel_consumers()
        except BrokerError as exc:
            logger.debug("the connection is gone, and its consumers with it: %s", exc)
        except TimeoutError:
            logger.warning("the broker does not answer: it may go on sending tasks, which go back to their queues")

    async def _pull(self) -> None:
        """Take one message, the most urgent there is; if there is none, have the next ones pushed."""
        while not self._is_stopped:
            try:
                taken = await self._take_most_urgent()
            except BrokerError as exc:
                logger.debug("no messages for now: %s", exc)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if taken is None:
                await self._push()
            else:
                self._take(*taken, DeliveryLag())  # the leader itself has answered: there is none
            return

    async def _take_most_urgent(self) -> tuple[QoS, Delivery] | None:
        for qos in self._queues:
            delivery = await self._connection.get(self._names.task_queue(qos))
            if delivery is not None:
                return qos, delivery
        return None

    async def _push(self) -> None:
        self._is_pushed = True
        self._prefetch = self._wanted_prefetch()
        logger.debug("up to %d messages of each queue are here at a time", self._prefetch)
        for qos in self._queues:
            queue = self._names.task_queue(qos)
            self._lags[qos].begin()
            with contextlib.suppress(BrokerError):  # the consumer is renewed with its connection
                await self._connection.consume(Subscription(queue, self._prefetch, partial(self._on_pushed, qos)))
