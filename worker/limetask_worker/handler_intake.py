"""Lets the events of one handler come in as fast as it handles them, and keeps none waiting here for long."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable

from limetask.amqp import Connection, Delivery, Subscription
from limetask.errors import BrokerError
from limetask.redeliveries import Arrived, DeliveryMemory

logger = logging.getLogger(__name__)

# Events on their way here beside those that are being handled, while each is handled quickly.
_AHEAD = 8
# So long may an event wait here before it goes back to its queue, at most.
_PATIENCE_SECONDS = 0.5
_PATIENCE_SHARE = 0.1
# An event that has all others ahead of it waits less than the patience.
_QUICK_SECONDS = _PATIENCE_SECONDS / (2 * _AHEAD)
# With more quick ones in a row than can have gone back, what goes back is handled before the next goes back.
_QUICK_IN_A_ROW = 2 * _AHEAD


class HandlerIntake:
    """Has as many events here as are handled at a time, and some ahead of them while they are handled quickly.

    The broker counts from the delivery for how long an event is unacked, and takes it away in the end. So what waits
    here for longer than a short patience goes back, and from then on one comes for each free place: without one there
    is no consumer. Up to RabbitMQ 4.2 each return counts as a delivery, and there is a limit to them: nothing is had
    ahead before a handler was quick.
    """

    def __init__(
        self,
        connection: Connection,
        queue: str,
        concurrency: int,
        longest_hold: float,
        memory: DeliveryMemory[Delivery],
        on_arrival: Callable[[], None],
    ) -> None:
        """`longest_hold` is for how many seconds an event may be here; `on_arrival` is called for each new one."""
        self._connection = connection
        self._queue = queue
        self._concurrency = concurrency
        self._patience = min(_PATIENCE_SECONDS, longest_hold * _PATIENCE_SHARE)
        self._memory = memory
        self._on_arrival = on_arrival
        self._waiting: deque[Arrived[Delivery]] = deque()
        self._ahead = 0
        self._quick_in_a_row = 0
        self._prefetch = 0
        self._subscription: Subscription | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._fitting: asyncio.Task[None] | None = None
        self._must_fit = False
        self._is_stopped = False

    @staticmethod
    def most_unacked(concurrency: int) -> int:
        """Return how many events of one handler the broker delivers before the first of them is acked."""
        return concurrency + _AHEAD

    async def start(self) -> None:
        """Have events delivered, now and after every reconnect; raises BrokerRefusedError if the user may not."""
        await self._consume(self._concurrency)

    async def stop(self) -> None:
        """Let nothing more in, and give back what waits."""
        self._is_stopped = True
        if self._looking is not None:
            self._looking.cancel()
        if self._fitting is not None:
            await asyncio.wait([self._fitting])
        with contextlib.suppress(BrokerError):
            await self._cancel()
        self._give_back_waiting()

    def take(self) -> Arrived[Delivery] | None:
        """Return the event that has waited for longest, None if none waits."""
        while self._waiting and not self._is_stopped:
            arrived = self._waiting.popleft()
            if self._memory.holds(arrived):  # else it is delivered again
                return arrived
        return None

    def note_end(self, seconds: float) -> None:
        """Say that an event has ended that had a place for `seconds`."""
        self._quick_in_a_row = self._quick_in_a_row + 1 if seconds < _QUICK_SECONDS else 0
        if self._ahead == 0 and self._quick_in_a_row > _QUICK_IN_A_ROW:
            self._have_ahead(_AHEAD)
        elif self._prefetch < self._concurrency:
            self._fit()

    def _on_delivery(self, delivery: Delivery) -> None:
        arrived = Arrived([delivery])
        if not self._memory.recognises(arrived):
            self._waiting.append(arrived)
            self._look_in(self._patience)
            self._on_arrival()

    def _look_in(self, seconds: float) -> None:
        if self._looking is None and not self._is_stopped:
            self._looking = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        self._looking = None
        while self._waiting and not self._memory.holds(self._waiting[0]):
            self._waiting.popleft()
        if not self._waiting:
            return
        left = self._patience - self._waiting[0].age
        if left > 0:
            self._look_in(left)
        else:
            self._have_ahead(0)

    def _have_ahead(self, ahead: int) -> None:
        logger.debug("%s: %d events are here at a time ahead of those that are being handled", self._queue, ahead)
        self._ahead = ahead
        self._quick_in_a_row = 0
        self._fit()

    def _fit(self) -> None:
        """Have the right number of events delivered: a quorum queue fixes it when its consumer begins."""
        self._must_fit = True
        if self._fitting is None and not self._is_stopped:
            self._fitting = asyncio.get_running_loop().create_task(self._fit_prefetch())
            self._fitting.add_done_callback(self._on_fitted)

    async def _fit_prefetch(self) -> None:
        self._must_fit = False
        with contextlib.suppress(BrokerError):  # the consumer is renewed with its connection
            await self._cancel()
        if self._ahead == 0:
            self._give_back_waiting()
        with contextlib.suppress(BrokerError):
            # What is in hand came by an earlier consumer: the broker does not count it against this one.
            await self._consume(max(0, self._concurrency - self._memory.in_hand) + self._ahead)

    def _on_fitted(self, fitting: asyncio.Task[None]) -> None:
        self._fitting = None
        fitting.result()
        if self._must_fit:
            self._fit()

    async def _consume(self, prefetch: int) -> None:
        self._prefetch = prefetch
        if prefetch and not self._is_stopped:
            self._subscription = Subscription(self._queue, prefetch, self._on_delivery)
            await self._connection.consume(self._subscription)

    async def _cancel(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await self._connection.cancel(subscription)

    def _give_back_waiting(self) -> None:
        while self._waiting:
            for delivery in self._waiting.popleft().deliveries:
                self._connection.give_back(delivery)
