"""Lets the events of a durable subscription come in as fast as its reader works, and keeps none waiting for long."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from limetask import clock
from limetask.aio.session import Delivery, Session
from limetask.errors import BrokerError
from limetask.redeliveries import Arrived, DeliveryMemory

# Events on their way here while each is done with quickly.
_AHEAD = 10
# An event may wait here for this long before it goes back to its queue, at most.
_PATIENCE_SECONDS = 0.5
_PATIENCE_SHARE = 0.1
# An event that has all others ahead of it waits less than the patience.
_QUICK_SECONDS = _PATIENCE_SECONDS / (2 * _AHEAD)
# With more quick ones in a row than can have gone back, what goes back is done with before the next goes back.
_QUICK_IN_A_ROW = 2 * _AHEAD
# An event that is taken away this often while its reader works on it comes again only when the reader is done.
_MAX_TAKEN_AWAY = 3
# More than can be unacked at a time: one that another reader of the queue had meanwhile may come late.
_REMEMBERED = 1000


class _Acks:
    """Acks deliveries of any session. Without effect for those whose session has ended: they come again."""

    def holds(self, delivery: Delivery) -> bool:
        return delivery.session.is_alive

    def ack(self, delivery: Delivery) -> None:
        delivery.session.ack(delivery)


class DurableIntake:
    """Has the event here that its reader works on, and some ahead of it while the reader is quick.

    The broker counts from the delivery for how long an event is unacked, and then closes the channel. So what waits
    here for longer than a short patience goes back, and there is no consumer until the reader asks for the next event.
    Each return counts as a delivery up to RabbitMQ 4.2, and there is a limit to them: nothing is had ahead before the
    reader was quick. The event that it works on may be delivered again after a lost connection, and is not begun again.
    """

    def __init__(self, queue: str, consumer_timeout: float, on_arrival: Callable[[], None]) -> None:
        """`consumer_timeout` is the broker's, in seconds; `on_arrival` is called for each new event."""
        self._queue = queue
        self._patience = min(_PATIENCE_SECONDS, consumer_timeout * _PATIENCE_SHARE)
        self._on_arrival = on_arrival
        self._memory: DeliveryMemory[Delivery] = DeliveryMemory(_Acks(), _REMEMBERED)
        self._waiting: deque[Arrived[Delivery]] = deque()
        self._in_work: Arrived[Delivery] | None = None
        self._begun_at = 0.0
        self._quick_in_a_row = 0
        self._session: Session | None = None
        self._consumer_tag = ""
        self._prefetch = self._wanted = 0
        self._changing = asyncio.Lock()
        self._fitting: asyncio.Task[None] | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._is_stopped = False

    async def begin(self, session: Session) -> None:
        """Have events delivered in this session, which is a new one; raises BrokerError."""
        async with self._changing:  # what was changed in the former one has failed by now
            self._session, self._prefetch = session, 0
            self._quick_in_a_row = 0
            is_often_taken_away = self._in_work is not None and len(self._in_work.deliveries) >= _MAX_TAKEN_AWAY
            self._wanted = 0 if is_often_taken_away else 1
        await self._fit()

    def stop(self) -> None:
        """Change nothing more: the session is about to end, and the broker takes back all that was not acked."""
        self._is_stopped = True
        if self._looking is not None:
            self._looking.cancel()

    def take(self) -> Arrived[Delivery] | None:
        """Return the event to work on until `done`; None if none is here, and then one is asked for."""
        while self._in_work is None and self._waiting:
            arrived = self._waiting.popleft()
            if self._memory.holds(arrived):  # else it is delivered again
                self._memory.take_in_hand(arrived)
                self._in_work, self._begun_at = arrived, clock.now()
        if self._in_work is None and self._wanted == 0:
            self._want(1)
        return self._in_work

    def done(self, arrived: Arrived[Delivery]) -> None:
        """Ack the event that was taken."""
        self._memory.let_go(arrived)
        self._in_work = None
        is_quick = clock.now() - self._begun_at < _QUICK_SECONDS
        self._quick_in_a_row = self._quick_in_a_row + 1 if is_quick else 0
        if self._wanted == 1 and self._quick_in_a_row > _QUICK_IN_A_ROW:
            self._want(_AHEAD)

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
            self._quick_in_a_row = 0
            self._want(0)

    def _want(self, prefetch: int) -> None:
        """Have this many events delivered ahead of their acks: a quorum queue fixes it when its consumer begins."""
        self._wanted = prefetch
        if not self._is_stopped and (self._fitting is None or self._fitting.done()):
            self._fitting = asyncio.get_running_loop().create_task(self._fit_unless_lost())

    async def _fit_unless_lost(self) -> None:
        with contextlib.suppress(BrokerError):  # the next session begins with what is wanted then
            await self._fit()

    async def _fit(self) -> None:
        async with self._changing:
            while self._session is not None and self._session.is_alive and self._prefetch != self._wanted:
                await self._change(self._session, self._wanted)

    async def _change(self, session: Session, prefetch: int) -> None:
        if self._prefetch:
            await session.cancel(self._consumer_tag)
            self._prefetch = 0
        if prefetch:
            self._consumer_tag = await session.consume(self._queue, prefetch, self._on_delivery)
            self._prefetch = prefetch
        else:
            self._give_back_waiting()

    def _give_back_waiting(self) -> None:
        while self._waiting:
            for delivery in self._waiting.popleft().deliveries:
                delivery.session.give_back(delivery)
