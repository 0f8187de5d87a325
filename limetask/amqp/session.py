"""One life of a connection: from its opening to its first fault."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import count, takewhile
from typing import Any, NamedTuple, TypeVar

import pika
from pika import exceptions as pika_errors

from limetask.amqp.acks import Acks
from limetask.amqp.cancelling import why_cancelled
from limetask.amqp.declaring import Declarer, answer_to
from limetask.amqp.delivery import Delivery, ReplyQueue, Subscription
from limetask.amqp.faults import HANDSHAKE_TOO_SLOW, fate_of_publish, map_error, map_error_of_opening, unreachable
from limetask.amqp.frames import encode_ack, encode_publish
from limetask.amqp.pika_connection import PikaConnection
from limetask.amqp.unanswered import Unanswered
from limetask.codec import DEFAULT_FRAME_BYTES, fitting_dead_letter
from limetask.errors import BrokerError, ConnectionLostError, NotConfirmedError, UnroutableError
from limetask.message import Envelope, MessageKind
from limetask.topology import Binding, Topology

T = TypeVar("T")

_CLOSE_SECONDS = 2.0


class Session:
    """Connection and channel of one epoch. It ends at the first fault of either, and `closed` tells why."""

    def __init__(self, connection: PikaConnection, parameters: Any, epoch: int) -> None:
        self._connection = connection
        self._parameters = parameters
        self.epoch = epoch
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[BrokerError] = self._loop.create_future()
        self._socket_closed: asyncio.Future[None] = self._loop.create_future()
        self._channel: Any = None
        self._channel_number = 0
        self._has_small_frames = False
        self._consumer_numbers = count(1)
        # The prefetch is the channel's until its consumer begins: another must not come in between.
        self._beginning = asyncio.Lock()
        self._consumers: dict[bytes, _Consumer] = {}
        self._acks = Acks(self._send_ack)
        self._getting: asyncio.Future[Delivery | None]
        self._ending: asyncio.Task[None]
        self._publish_number = 0
        self._unconfirmed: dict[int, _Unconfirmed] = {}
        self._returned: set[str | None] = set()
        self._unanswered = Unanswered()
        self._is_blocked = False
        connection.add_on_close_callback(lambda _, error: self._on_connection_closed(error))
        connection.add_on_connection_blocked_callback(lambda *_: self._note_blocked(is_blocked=True))
        connection.add_on_connection_unblocked_callback(lambda *_: self._note_blocked(is_blocked=False))

    @property
    def is_alive(self) -> bool:
        """True until the first fault: an ack still has a channel to go to."""
        return not self.closed.done() and self._channel.is_open

    @property
    def broker_version(self) -> str:
        """What the broker said of itself when it was connected to."""
        return str((self._connection.server_properties or {}).get("version", "unknown"))

    def end_if_unanswered(self) -> None:
        """End this session if the broker has left a publish unanswered for a minute: another may get an answer."""
        oldest = next(iter(self._unconfirmed), None)
        if self._unanswered.look(oldest, self._publish_number, is_blocked=self._is_blocked):
            self.end(ConnectionLostError("the broker has neither confirmed nor refused a message for a minute"))

    def _note_blocked(self, *, is_blocked: bool) -> None:
        self._is_blocked = is_blocked

    async def open_channel(self) -> None:
        self._channel = await self._call(partial(self._connection.channel, on_open_callback=None), "on_open_callback")
        self._channel.add_on_close_callback(lambda _, error: self.end(error))
        self._channel.add_on_cancel_callback(lambda frame: self._end_by_cancel(frame.method.consumer_tag))
        self._channel.add_on_return_callback(self._on_return)
        self._channel.add_callback(lambda _: self._getting.set_result(None), [pika.spec.Basic.GetEmpty], False)
        self._channel_number = self._channel.channel_number
        self._frame_bytes = self._connection.params.frame_max
        self._has_small_frames = self._frame_bytes < DEFAULT_FRAME_BYTES
        self._connection.hand_over(self._channel_number, self._on_delivery, self._on_confirm)
        await self._call(partial(self._channel.confirm_delivery, lambda _: None))

    async def declare(self, wanted: Topology, namespace: str) -> None:
        await self._with_declarer(namespace, lambda declarer: declarer.declare(wanted))

    async def unbind(self, bindings: Iterable[Binding], namespace: str) -> None:
        await self._with_declarer(namespace, lambda declarer: declarer.unbind(bindings))

    async def find_queue(self, queue: str, namespace: str) -> tuple[int, int] | None:
        return await self._with_declarer(namespace, lambda declarer: declarer.counts(queue))

    async def is_empty(self, queue: str, namespace: str) -> bool:
        return await self._with_declarer(namespace, lambda declarer: declarer.is_empty(queue))

    async def delete(self, queue: str, namespace: str) -> int:
        return await self._with_declarer(namespace, lambda declarer: declarer.delete(queue))

    async def consume(self, subscription: Subscription) -> None:
        async with self._beginning:
            await self._call(partial(self._channel.basic_qos, prefetch_count=subscription.prefetch))
            await self._consume(subscription.queue, subscription.on_delivery, auto_ack=False)

    async def consume_replies(self, replies: ReplyQueue) -> None:
        frame = await self._call(
            partial(
                self._channel.queue_declare,
                "",
                exclusive=True,
                auto_delete=True,
                arguments={"x-max-length": replies.max_length},
            )
        )
        queue = frame.method.queue
        await self._call(partial(self._channel.queue_bind, queue, replies.exchange, routing_key=replies.routing_key))
        await self._consume(queue, replies.on_delivery, auto_ack=True)

    async def cancel(self, subscription: Subscription) -> None:
        async with self._beginning:  # it may be about to begin
            for tag, consumer in tuple(self._consumers.items()):
                if (consumer.queue, consumer.on_delivery) == (subscription.queue, subscription.on_delivery):
                    await self._cancel(tag)

    async def cancel_consumers(self) -> None:
        for tag in tuple(self._consumers):
            await self._cancel(tag)

    async def _cancel(self, tag: bytes) -> None:
        await self._call(partial(self._channel.basic_cancel, tag.decode()))
        del self._consumers[tag]

    async def queue_counts(self, queue: str) -> tuple[int, int]:
        frame = await self._call(partial(self._channel.queue_declare, queue, passive=True))
        return frame.method.message_count, frame.method.consumer_count

    async def get(self, queue: str) -> Delivery | None:
        """Take one message off a queue, None if there is none. One call at a time."""
        self._getting = self._loop.create_future()
        self._acks.flush()
        try:
            self._channel.basic_get(queue, partial(self._on_got, queue))
        except pika_errors.AMQPError as exc:
            raise self._map(exc) from exc
        either: list[asyncio.Future[Any]] = [self._getting, self.closed]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not self._getting.done():
            raise self.closed.result()
        return self._getting.result()

    def publish(
        self, exchange: str, routing_key: str, envelope: Envelope, copy_to: str | None, *, mandatory: bool
    ) -> asyncio.Future[None]:
        confirmed: asyncio.Future[None] = self._loop.create_future()
        self._acks.flush()  # in the order in which it was asked for: what is refused closes the channel
        if self._has_small_frames and envelope.kind == MessageKind.DEAD_LETTER:
            envelope = fitting_dead_letter(envelope, self._frame_bytes)
        try:
            self._write(
                encode_publish(
                    self._channel_number,
                    exchange,
                    routing_key,
                    envelope,
                    copy_to,
                    mandatory=mandatory,
                    frame_bytes=self._frame_bytes,
                )
            )
        except pika_errors.AMQPError as exc:
            confirmed.set_exception(self._map(exc))
            return confirmed
        self._publish_number += 1
        self._unconfirmed[self._publish_number] = _Unconfirmed(exchange, envelope, confirmed)
        return confirmed

    def ack(self, tag: int, *, multiple: bool) -> None:
        self._acks.ack(tag, multiple=multiple)

    def give_back(self, tag: int, *, requeue: bool) -> None:
        self._acks.given_back(tag)
        self._channel.basic_nack(tag, requeue=requeue)

    def _send_ack(self, tag: int, multiple: bool) -> None:
        if self._channel.is_open:
            self._write(encode_ack(self._channel_number, tag, multiple=multiple))

    def _write(self, frames: bytes) -> None:
        if not self._channel.is_open:
            raise pika_errors.ChannelWrongStateError("the channel is closed")
        self._connection.write(frames)

    async def close(self) -> None:
        self._acks.flush()
        if self._connection.is_open:
            self._connection.close()
        await asyncio.wait([self._socket_closed], timeout=_CLOSE_SECONDS)
        if not self._socket_closed.done():  # the broker is busy with a queue that does not answer it, say
            self._connection.drop()
            await asyncio.wait([self._socket_closed], timeout=_CLOSE_SECONDS)

    async def _with_declarer(self, namespace: str, use: Callable[[Declarer], Awaitable[T]]) -> T:
        try:
            return await use(Declarer(self._connection, self._parameters, namespace))
        except pika_errors.AMQPError as exc:
            raise self._map(exc) from exc

    async def _consume(self, queue: str, on_delivery: Callable[[Delivery], None], *, auto_ack: bool) -> None:
        tag = f"limetask-{next(self._consumer_numbers)}"
        self._consumers[tag.encode()] = _Consumer(queue, on_delivery, auto_ack)
        consume = partial(self._channel.basic_consume, queue, _never_called, auto_ack=auto_ack, consumer_tag=tag)
        await self._call(consume)

    async def _call(self, method: Callable[..., Any], callback_name: str = "callback") -> Any:
        """Call one of pika's methods and wait for the broker's answer, or for the session's end.

        The answer tells that the broker has got what was sent before, acks as well.
        """
        self._acks.flush()
        try:
            return await answer_to(method, self.closed, callback_name)
        except pika_errors.AMQPError as exc:
            raise self._map(exc) from exc

    def _on_delivery(
        self, consumer_tag: bytes, tag: int, redelivered: bool, exchange: bytes, envelope: Envelope
    ) -> None:
        consumer = self._consumers[consumer_tag]
        if not consumer.auto_ack:
            self._acks.delivered(tag)
        consumer.on_delivery(Delivery(tag, self.epoch, consumer.queue, redelivered, envelope, exchange))

    def _on_got(self, queue: str, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        envelope = Envelope(
            body,
            properties.content_type,
            properties.message_id,
            properties.type,
            properties.reply_to,
            properties.headers,
        )
        self._acks.delivered(method.delivery_tag)
        self._getting.set_result(Delivery(method.delivery_tag, self.epoch, queue, method.redelivered, envelope))

    def _on_return(self, _channel: Any, _method: Any, properties: Any, _body: bytes) -> None:
        # The broker returns an unroutable message first and confirms it afterwards.
        self._returned.add(properties.message_id)

    def _on_confirm(self, last: int, multiple: bool, accepted: bool) -> None:
        for number in self._numbers_up_to(last) if multiple else (last,):
            publish = self._unconfirmed.pop(number, None)
            if publish is not None:
                self._settle(publish.confirmed, publish.envelope.message_id, accepted=accepted)

    def _numbers_up_to(self, last: int) -> list[int]:
        return list(takewhile(last.__ge__, self._unconfirmed))

    def _settle(self, confirmed: asyncio.Future[None], message_id: str | None, *, accepted: bool) -> None:
        returned = message_id in self._returned
        self._returned.discard(message_id)
        if confirmed.done():
            return  # its sender has given up waiting
        if returned:
            confirmed.set_exception(UnroutableError("the broker has no queue for the message"))
        elif accepted:
            confirmed.set_result(None)
        else:
            confirmed.set_exception(NotConfirmedError("the broker refused the message: a queue is full or unavailable"))

    def _end_by_cancel(self, consumer_tag: str) -> None:
        consumer = self._consumers.get(consumer_tag.encode())
        if consumer is not None:  # else we have cancelled it ourselves meanwhile
            self._ending = self._loop.create_task(self._tell_why_cancelled(consumer.queue))

    async def _tell_why_cancelled(self, queue: str) -> None:
        self.end(await why_cancelled(queue, self.find_queue(queue, namespace="")))

    def _on_connection_closed(self, error: BaseException) -> None:
        self.end(error)
        self._socket_closed.set_result(None)

    def end(self, error: BaseException) -> None:
        """End this session, unless it has ended: all that it has not confirmed fails."""
        if self.closed.done():
            return
        mapped = self._map(error)
        self.closed.set_result(mapped)
        unconfirmed, self._unconfirmed = self._unconfirmed, {}
        for publish in unconfirmed.values():
            if not publish.confirmed.done():
                publish.confirmed.set_exception(fate_of_publish(publish.exchange, publish.envelope, mapped))
        if self._connection.is_open:
            self._connection.close()

    def _map(self, error: BaseException) -> BrokerError:
        return map_error(error, self._parameters)


@dataclass(frozen=True, slots=True)
class _Consumer:
    """Where the deliveries of one consumer come from, and who gets them."""

    queue: str
    on_delivery: Callable[[Delivery], None]
    auto_ack: bool


class _Unconfirmed(NamedTuple):
    """A publish that the broker has not answered yet."""

    exchange: str
    envelope: Envelope
    confirmed: asyncio.Future[None]


def _never_called(*_: Any) -> None:
    """Stand where pika wants to be told what to do with deliveries: they do not come by pika's channel."""


async def open_pika_connection(parameters: Any) -> PikaConnection:
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[Any] = loop.create_future()
    PikaConnection.create_connection([parameters], opened.set_result, custom_ioloop=loop)
    try:
        # Longer than pika's own deadline: should it ever miss that, this still ends.
        async with asyncio.timeout(parameters.stack_timeout + _CLOSE_SECONDS):
            result = await asyncio.shield(opened)
    except TimeoutError:
        await _abandon(opened)
        raise unreachable(parameters, HANDSHAKE_TOO_SLOW) from None
    except asyncio.CancelledError:
        await _abandon(opened)
        raise
    if isinstance(result, PikaConnection):
        return result
    raise map_error_of_opening(result, parameters)


async def _abandon(opened: asyncio.Future[Any]) -> None:
    """Let an attempt to connect end by itself: pika 1.4 fails an assertion when it is aborted in the handshake."""
    await asyncio.wait([opened], timeout=_CLOSE_SECONDS)
    if opened.done() and isinstance(opened.result(), PikaConnection):
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        opened.result().add_on_close_callback(lambda *_: closed.set_result(None))
        opened.result().close()
        await asyncio.wait([closed], timeout=_CLOSE_SECONDS)
