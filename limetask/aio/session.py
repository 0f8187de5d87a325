"""One life of a connection: from its opening to its first fault."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import aio_pika
from aio_pika.abc import AbstractChannel
from aio_pika.connection import Connection, make_url
from aiormq.abc import AbstractChannel as UnderlayChannel
from aiormq.abc import DeliveredMessage

from limetask.aio.declaring import Declarer
from limetask.aio.faults import map_error, map_error_of_opening
from limetask.aio.transport import Transport
from limetask.amqp.cancelling import why_cancelled
from limetask.amqp.faults import fate_of_publish
from limetask.codec import fitting_dead_letter
from limetask.errors import BrokerError, ConnectionLostError, NotConfirmedError, UnroutableError
from limetask.message import Envelope, MessageKind
from limetask.topology import Topology

T = TypeVar("T")

_CLOSE_SECONDS = 5.0
_ACK_SECONDS = 1.0
# aiormq takes a connection for dead after three times its heartbeat and three seconds, and we after one heartbeat.
_HEARTBEATS_OF_AIORMQ = 3


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message as the broker delivered it, to be acked with the session that it came in."""

    session: Session
    tag: int
    queue: str
    redelivered: bool
    envelope: Envelope


@dataclass(frozen=True, slots=True)
class LiveQueue:
    """A queue of one connection alone, gone with it, that gets what fits any of the routing keys.

    It holds `max_length` messages and drops the oldest.
    """

    exchange: str
    routing_keys: Sequence[str]
    max_length: int


class Session:
    """An open connection with one channel, in confirm mode. `closed` tells why it has ended."""

    def __init__(self, connection: Connection, parameters: Any, namespace: str) -> None:
        self._connection = connection
        self._parameters = parameters
        self._namespace = namespace
        self._channel: AbstractChannel
        self._underlay: UnderlayChannel
        self.closed: asyncio.Future[BrokerError] = asyncio.get_running_loop().create_future()
        self._calls: set[asyncio.Task[Any]] = set()
        self._acks: set[asyncio.Task[None]] = set()
        self._consumed: dict[str | None, str] = {}
        self._ending: asyncio.Task[None]
        connection.close_callbacks.add(self._on_closed)

    @property
    def is_alive(self) -> bool:
        """True until the first fault."""
        return not self.closed.done()

    async def open_channel(self) -> None:
        """Open the channel that everything else needs."""
        self._channel = self._connection.channel(publisher_confirms=True, on_return_raises=True)
        await self._answer_to(self._channel.initialize())
        self._channel.close_callbacks.add(self._on_closed)
        self._underlay = await self._channel.get_underlay_channel()
        self._frame_bytes = self._underlay.connection.connection_tune.frame_max
        self._underlay.on_consumer_cancel_callbacks.add(self._on_consumer_cancelled)

    async def declare(self, wanted: Topology) -> None:
        """Declare what is wanted; raises BrokerError."""
        await self._answer_to(Declarer(self._connection, self._parameters, self._namespace).declare(wanted))

    async def consume(self, queue: str, prefetch: int, on_delivery: Callable[[Delivery], None]) -> str:
        """Consume from a queue, and return the consumer's tag; what is delivered must be acked or given back."""
        await self._answer_to(self._channel.set_qos(prefetch_count=prefetch))
        return await self._consume(queue, on_delivery, no_ack=False)

    async def cancel(self, consumer_tag: str) -> None:
        """End a consumer; what was delivered to it can still be acked or given back."""
        await self._answer_to(self._underlay.basic_cancel(consumer_tag))
        self._consumed.pop(consumer_tag, None)

    async def consume_live(
        self, live: LiveQueue, on_delivery: Callable[[Delivery], None], *, prefetch: int | None = None
    ) -> str:
        """Make a queue of this connection alone, consume from it, and return its name.

        With a `prefetch` what is delivered must be acked; without one, nothing is.
        """
        declare = self._channel.declare_queue(
            None, exclusive=True, auto_delete=True, arguments={"x-max-length": live.max_length}
        )
        queue = await self._answer_to(declare)
        for routing_key in live.routing_keys:
            await self._answer_to(queue.bind(live.exchange, routing_key))
        if prefetch is not None:
            await self._answer_to(self._channel.set_qos(prefetch_count=prefetch))
        await self._consume(queue.name, on_delivery, no_ack=prefetch is None)
        return queue.name

    async def queue_length(self, queue: str) -> int:
        """Return how many messages wait in a queue; those being delivered are not counted."""
        answer = await self._answer_to(self._underlay.queue_declare(queue, passive=True))
        return answer.message_count or 0

    async def publish(self, exchange: str, routing_key: str, envelope: Envelope, *, mandatory: bool) -> None:
        """Publish a persistent message, and return when the broker has confirmed it; raises BrokerError."""
        if envelope.kind == MessageKind.DEAD_LETTER:
            envelope = fitting_dead_letter(envelope, self._frame_bytes)
        call = self._underlay.basic_publish(
            envelope.body,
            exchange=exchange,
            routing_key=routing_key,
            properties=_message(envelope).properties,
            mandatory=mandatory,
        )
        try:
            await self._answer_to(call)
        except (UnroutableError, NotConfirmedError):
            raise
        except BrokerError as exc:
            raise fate_of_publish(exchange, envelope, exc) from exc

    def ack(self, delivery: Delivery) -> None:
        """Ack a delivery of this session. Without effect if it has ended: the broker has taken the message back."""
        self._settle(self._underlay.basic_ack, delivery)

    def give_back(self, delivery: Delivery) -> None:
        """Return a delivery of this session to its queue. Without effect if it has ended: it is back already."""
        self._settle(self._underlay.basic_nack, delivery)

    def _settle(self, settle: Callable[[int], Awaitable[None]], delivery: Delivery) -> None:
        async def send() -> None:
            await settle(delivery.tag)  # returns when it is written to the socket

        if self.is_alive:
            sending = self._start(send())
            self._acks.add(sending)
            sending.add_done_callback(self._acks.discard)

    async def close(self) -> None:
        """Close connection and channel, and end all calls that still wait; acks are sent before."""
        if self._acks:
            await asyncio.wait(self._acks, timeout=_ACK_SECONDS)
        self._end(ConnectionLostError("the connection was closed"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._connection.close()
        if self._calls:
            await asyncio.wait(self._calls, timeout=_CLOSE_SECONDS)

    async def _consume(self, queue: str, on_delivery: Callable[[Delivery], None], *, no_ack: bool) -> str:
        # aio-pika's own message class refuses properties of foreign messages that this one takes as they are.
        async def on_message(message: DeliveredMessage) -> None:
            if message.delivery_tag is not None:
                redelivered = bool(message.redelivered)
                on_delivery(Delivery(self, message.delivery_tag, queue, redelivered, _envelope(message)))

        consuming = await self._answer_to(self._underlay.basic_consume(queue, on_message, no_ack=no_ack))
        tag = str(consuming.consumer_tag)
        self._consumed[tag] = queue
        return tag

    async def _answer_to(self, call: Coroutine[Any, Any, T]) -> T:
        """Await one of aio-pika's calls, or the session's end: some of them would wait for ever on a dead connection.

        The call has a task of its own, since aiormq ends calls with CancelledError when a connection is lost, which
        must not look like a cancellation of our caller. Should it not end with the session, it is left to itself.
        """
        task = self._start(call)
        either: list[asyncio.Future[Any]] = [task, self.closed]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            task.cancel()  # unless it is done
        if not task.done():
            raise self.closed.result()
        if task.cancelled():
            self._end(ConnectionLostError("aio-pika gave up a call"))  # unless it is known already why
            raise self.closed.result()
        error = task.exception()
        if error is not None:
            mapped = map_error(error, self._parameters)
            if isinstance(mapped, ConnectionLostError):
                self._end(mapped)
            raise mapped from error
        return task.result()

    def _start(self, call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._on_call_done)
        if not self.is_alive:
            task.cancel()
        return task

    def _on_call_done(self, task: asyncio.Task[Any]) -> None:
        self._calls.discard(task)
        if not task.cancelled():
            task.exception()  # it has been looked at, should its caller have gone

    async def _on_closed(self, _sender: Any, error: BaseException | None) -> None:
        self._end(map_error(error or ConnectionLostError("the connection was closed"), self._parameters))

    async def _on_consumer_cancelled(self, frame: Any) -> None:
        queue = self._consumed.get(frame.consumer_tag)
        if queue is None:
            self._end(ConnectionLostError("the broker cancelled a consumer that had just begun"))
        else:
            # Not here: aiormq reads no further until this returns.
            self._ending = asyncio.get_running_loop().create_task(self._tell_why_cancelled(queue))

    async def _tell_why_cancelled(self, queue: str) -> None:
        declarer = Declarer(self._connection, self._parameters, self._namespace)
        self._end(await why_cancelled(queue, self._answer_to(declarer.find_queue(queue))))

    def _end(self, error: BrokerError) -> None:
        if self.closed.done():
            return
        self.closed.set_result(error)
        for call in tuple(self._calls):
            call.cancel()


@contextlib.asynccontextmanager
async def open_session(parameters: Any, namespace: str) -> AsyncIterator[Session]:
    """Connect, give the session, and close it. `parameters` are pika's. Raises BrokerError if it cannot be opened."""
    context = parameters.ssl_options and parameters.ssl_options.context
    connection = Connection(
        make_url(
            host=parameters.host,
            port=parameters.port,
            login=parameters.credentials.username,
            password=parameters.credentials.password,
            virtualhost=parameters.virtual_host,
            ssl=parameters.ssl_options is not None,
            heartbeat=max(1, parameters.heartbeat // _HEARTBEATS_OF_AIORMQ - 1),
        ),
        ssl_context=context,
        client_properties=dict(parameters.client_properties),
    )
    transport = Transport(context)
    connection.kwargs["transport_factory"] = transport
    try:
        async with asyncio.timeout(parameters.stack_timeout):
            await connection.connect()
        end_if_cancelled()
    except (Exception, asyncio.CancelledError) as exc:
        await connection.close()
        end_if_cancelled()
        raise map_error_of_opening(exc, parameters, transport.refusal()) from exc
    session = Session(connection, parameters, namespace)
    try:
        await session.open_channel()
        end_if_cancelled()
        yield session
    finally:
        await session.close()


def end_if_cancelled() -> None:
    """Raise CancelledError if the running task is to end: what it has awaited may have kept that to itself.

    aiormq 7.2.4 raises an InvalidFrameError in its place if a broker refuses the connection just then, and asyncio's
    own wait_for, which it calls, can forget it up to Python 3.11 (CPython issue 86296). A task that went on would never
    end, since nobody cancels it twice.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _message(envelope: Envelope) -> aio_pika.Message:
    return aio_pika.Message(
        envelope.body,
        content_type=envelope.content_type,
        headers=dict(envelope.headers or {}),
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        reply_to=envelope.reply_to,
        message_id=envelope.message_id,
        type=envelope.kind,
    )


def _envelope(message: DeliveredMessage) -> Envelope:
    properties = message.header.properties
    return Envelope(
        message.body,
        properties.content_type,
        properties.message_id,
        properties.message_type,
        properties.reply_to,
        properties.headers,
    )
