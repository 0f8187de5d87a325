"""`subscribe`: events as they happen, in an `async for` that outlives the broker's restarts."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Generic, TypeVar

from limetask.aio.connection import Connection
from limetask.aio.durable import DurableIntake
from limetask.aio.session import Delivery, LiveQueue, Session
from limetask.application import AnyApplication, identifier_of
from limetask.codec import encode_dead_headers, encode_dead_letter
from limetask.errors import (
    BrokerError,
    ConnectionLostError,
    DeclarationError,
    EventPatternError,
    MessageRefusedError,
    TooLargeForBrokerError,
)
from limetask.events import Event, decode_event
from limetask.handlers import MAX_HANDLER_NAME_BYTES
from limetask.logs import careful_logger
from limetask.message import Envelope
from limetask.patterns import EventPattern
from limetask.redeliveries import Arrived
from limetask.settings import Settings
from limetask.topology import Names, handler_topology

logger = careful_logger(__name__)

LIVE_QUEUE_LENGTH = 10_000
"""How many events wait at the broker for a live subscription whose reader is slower than they come."""

_LIVE_PREFETCH = 100
_FIRST_RETRY_SECONDS = 0.1
_LAST_RETRY_SECONDS = 5.0

T = TypeVar("T")
PublishDeadLetter = Callable[[Envelope], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class EventsMissed:
    """Between two events of a live subscription others may have been missed, for this reason. Times are in UTC.

    `since` is when the last event had come before, None if none had; `until` is from when on all come again.
    """

    reason: str
    since: datetime | None
    until: datetime


class Subscription(Generic[T]):
    """The events that `limetask.aio.subscribe` promises. Belongs to one loop, and to one reader at a time.

    Iterate over it with `async for`, which opens it at its first step and closes it when the loop is left; or open it
    with `async with`, to know that it is bound before something is sent, and iterate or call `anext` inside.

    `gaps` is how often events may have been missed so far.
    """

    def __init__(
        self,
        settings: Settings,
        patterns: Sequence[str | EventPattern],
        app: AnyApplication | None,
        durable: str | None,
        *,
        tell_missed: bool,
        publish_dead_letter: PublishDeadLetter,
        opened: set[Subscription[Any]],
    ) -> None:
        """`opened` is where it is for as long as it has to be closed.

        Raises EventPatternError, ApplicationError or DeclarationError for what cannot be subscribed to.
        """
        self._patterns = _checked(patterns)
        self._app = None if app is None else identifier_of(app)
        self._tell_missed = tell_missed
        self._timeout = settings.send_timeout
        self._publish_dead_letter = publish_dead_letter
        self._opened = opened
        self._names = Names(settings.namespace)
        self._bindings = sorted({pattern.binding for pattern in self._patterns})
        self._waiting: deque[Delivery | EventsMissed] = deque()
        self._arrived = asyncio.Event()
        self._unacked: Delivery | Arrived[Delivery] | None = None
        self._intake: DurableIntake | None = None
        self._live_queue = ""
        self._last_came_at: datetime | None = None
        self._acked = 0
        self._was_full = False
        self._is_open = False
        self._is_closed = False
        self._closing: asyncio.Task[None] | None = None
        self.gaps = 0
        if durable is None:
            self._connection = Connection(settings, "aio subscription", on_open=self._consume_live)
        else:
            queue = self._names.handler_queue(_checked_name(durable))
            wanted = handler_topology(self._names, durable, self._bindings)
            self._intake = DurableIntake(queue, settings.consumer_timeout, self._arrived.set)
            self._connection = Connection(
                settings, f"aio subscription {durable}", wanted=wanted, on_open=self._intake.begin
            )

    async def open(self) -> None:
        """Connect and bind, if that has not been done.

        Raises BrokerUnreachableError or another BrokerError within `Settings.send_timeout` seconds.
        """
        if self._is_closed:
            raise ConnectionLostError("this subscription is closed: subscribe anew")
        if self._is_open:
            return
        self._opened.add(self)
        try:
            await self._connection.ready(self._timeout)
        except BaseException:
            self._start_closing()  # not awaited: a broker that answers nothing would hold the error back
            raise
        self._is_open = True

    async def close(self) -> None:
        """Give up the subscription. May be called twice; whoever waits for an event gets ConnectionLostError."""
        await asyncio.shield(self._start_closing())

    def _start_closing(self) -> asyncio.Task[None]:
        if self._closing is None:
            self._is_closed = True
            self._arrived.set()
            if self._intake is not None:
                self._intake.stop()
            self._closing = asyncio.get_running_loop().create_task(self._connection.close())
            self._closing.add_done_callback(lambda _: self._opened.discard(self))
        return self._closing

    async def __aenter__(self) -> Subscription[T]:
        await self.open()
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[T]:
        # A generator, since that is closed when its `async for` is left, by whatever way.
        was_open = self._is_open
        try:
            while True:
                yield await self.__anext__()
        finally:
            if not was_open:
                await self.close()

    async def __anext__(self) -> T:
        """Return the next event, however long it takes; the one before it is acked."""
        await self.open()
        while True:
            await self._ack_last()
            item = await self._next_item()
            if isinstance(item, EventsMissed):
                return item  # type: ignore[return-value]  # only if T has it
            event = await self._event_in(item)
            self._unacked = item
            if event is not None and self._wants(event):
                return event  # type: ignore[return-value]

    async def _ack_last(self) -> None:
        last, self._unacked = self._unacked, None
        if isinstance(last, Delivery):
            await self._ack_live(last)
        elif last is not None and self._intake is not None:
            self._intake.done(last)

    async def _ack_live(self, last: Delivery) -> None:
        last.session.ack(last)
        self._acked += 1
        if self._acked % _LIVE_PREFETCH == 0:
            await self._look_for_overflow(last.session)

    async def _look_for_overflow(self, session: Session) -> None:
        """The broker tells nobody that a queue drops its oldest: look whether it is full while its reader goes on."""
        try:
            length = await session.queue_length(self._live_queue)
        except BrokerError:
            return  # a gap in any case
        is_full = length >= LIVE_QUEUE_LENGTH - 2 * _LIVE_PREFETCH
        if is_full and (not self._was_full or length >= LIVE_QUEUE_LENGTH):
            self._note_gap(f"{length:,} wait for a reader that is slower than they come, and the oldest are dropped")
        self._was_full = is_full

    async def _next_item(self) -> Delivery | Arrived[Delivery] | EventsMissed:
        while (item := self._first()) is None:
            if self._is_closed:
                raise ConnectionLostError("this subscription was closed")
            self._arrived.clear()
            await self._arrived.wait()
        return item

    def _first(self) -> Delivery | Arrived[Delivery] | EventsMissed | None:
        if self._intake is not None:
            return self._intake.take()
        return self._waiting.popleft() if self._waiting else None

    def _wants(self, event: Event) -> bool:
        if self._app is not None and event.app != self._app:
            return False
        return any(pattern.fits(event.routing_key, event.task_name) for pattern in self._patterns)

    async def _event_in(self, item: Delivery | Arrived[Delivery]) -> Event | None:
        try:
            return decode_event(item.envelope)
        except MessageRefusedError as exc:
            if isinstance(item, Arrived):  # should this be cancelled, the next step begins with it again
                await self._set_aside(item.deliveries[0], str(exc))
            else:
                logger.warning("ignoring a message among the events: %s", exc)
            return None

    async def _set_aside(self, delivery: Delivery, reason: str) -> None:
        """Make a message a dead letter before it is acked, however long the broker takes to keep it."""
        logger.error("dead-lettered a message from %s: %s", delivery.queue, reason)
        letter = encode_dead_letter(delivery.envelope, delivery.queue, reason, datetime.now(UTC))
        pause = _FIRST_RETRY_SECONDS
        while True:
            try:
                return await self._publish_dead_letter(letter)
            except TooLargeForBrokerError:
                letter = encode_dead_headers(delivery.envelope, delivery.queue, reason, datetime.now(UTC))
            except BrokerError as exc:
                logger.warning("publishing a dead letter again after: %s", exc)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LAST_RETRY_SECONDS)

    async def _consume_live(self, session: Session) -> None:
        live = LiveQueue(self._names.events_exchange, self._bindings, LIVE_QUEUE_LENGTH)
        self._live_queue = await session.consume_live(live, self._on_delivery, prefetch=_LIVE_PREFETCH)
        if self._is_open:
            self._note_gap("the connection to the broker was lost")

    def _on_delivery(self, delivery: Delivery) -> None:
        self._last_came_at = datetime.now(UTC)
        self._add(delivery)

    def _note_gap(self, reason: str) -> None:
        self.gaps += 1
        logger.warning("events of %s may have been missed: %s", ", ".join(self._bindings), reason)
        if self._tell_missed:
            self._add(EventsMissed(reason, self._last_came_at, datetime.now(UTC)))

    def _add(self, item: Delivery | EventsMissed) -> None:
        self._waiting.append(item)
        self._arrived.set()


def _checked(patterns: Sequence[str | EventPattern]) -> tuple[EventPattern, ...]:
    if not patterns:
        raise EventPatternError("subscribe needs a pattern, such as subscribe('core.task.#')")
    return tuple(pattern if isinstance(pattern, EventPattern) else EventPattern(pattern) for pattern in patterns)


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not name.isprintable() or not all(name.split(".")) or set("*# ") & set(name):
        raise DeclarationError(
            f"durable={name!r}: a durable subscription is named with words joined by dots, without spaces, * or #"
        )
    if len(name.encode("utf-8", "replace")) > MAX_HANDLER_NAME_BYTES:
        raise DeclarationError(f"durable={name[:40]!r}... is longer than {MAX_HANDLER_NAME_BYTES} bytes")
    return name
