"""The AMQP core: one connection that heals itself, on pika's asyncio adapter.

This module alone imports pika and maps its errors. A `Connection` owns everything that must be rebuilt together
after a fault: connection, channel, topology, prefetch and consumers. Each rebuild is a new *epoch*; a delivery
carries the epoch it came in, and an ack for an older one is dropped, since the broker has taken it back already.

A Connection belongs to one asyncio loop and is not thread-safe.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pika
from pika import exceptions as pika_errors
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.adapters.utils import connection_workflow

from limetask.errors import (
    BrokerError,
    BrokerRefusedError,
    BrokerUnreachableError,
    BrokerUrlError,
    ConnectionLostError,
    NotConfirmedError,
    UnroutableError,
)
from limetask.message import Envelope
from limetask.settings import Settings
from limetask.topology import Names, Topology, topology

logger = logging.getLogger(__name__)

# pika reports each fault several times, with addresses and without advice; `_map_error` says it once.
logging.getLogger("pika").setLevel(logging.CRITICAL)

_PERSISTENT = 2
_FIRST_RETRY_SECONDS = 0.1
_LAST_RETRY_SECONDS = 5.0
_CLOSE_SECONDS = 2.0
# A publishing connection that an alarm blocks for longer is rebuilt; callers have their own, shorter deadlines.
_BLOCKED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message as the broker delivered it; `tag` and `epoch` are what its ack needs."""

    tag: int
    epoch: int
    queue: str
    redelivered: bool
    envelope: Envelope


@dataclass(frozen=True, slots=True)
class Subscription:
    """A queue to consume from, renewed in every epoch."""

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


class Connection:
    """One self-healing AMQP connection with one channel, in confirm mode.

    `purpose` is what the broker's connection list shows. Consumers named with `consume` are renewed after every
    reconnect. Nothing is published twice: what was not confirmed when a connection closed fails with
    ConnectionLostError, and its sender decides.
    """

    def __init__(self, settings: Settings, purpose: str) -> None:
        """Raises BrokerUrlError if the settings' `broker_url` is not an AMQP URL."""
        self._parameters = _connection_parameters(settings, purpose)
        self._topology = topology(Names(settings.namespace))
        self._subscriptions: list[Subscription] = []
        self._reply_queue: ReplyQueue | None = None
        self._session: _Session | None = None
        self._epoch = 0
        self._waiters: dict[asyncio.Future[None], None] = {}  # in the order in which they came
        self._keeper: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._last_error: BrokerError | None = None

    @property
    def is_ready(self) -> bool:
        """True while the connection is open and everything on it is declared."""
        return self._session is not None

    async def ready(self, timeout: float) -> None:
        """Return once the connection is usable; opens it at the first call.

        Raises BrokerRefusedError as soon as the broker refuses us, and BrokerUnreachableError or whatever else went
        wrong last when `timeout` seconds are over.
        """
        if self._session is not None:
            return
        if self._keeper is None:
            self._keeper = asyncio.get_running_loop().create_task(self._keep_open())
        self._hurry.set()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        try:
            async with asyncio.timeout(timeout):
                await waiter
        except TimeoutError:
            raise self._last_error or _unreachable(self._parameters, "no answer") from None
        finally:
            del self._waiters[waiter]

    async def ready_at_last(self) -> None:
        """Return once the connection is usable, however long the broker takes to come up.

        Raises BrokerRefusedError if the broker refuses us: that seldom mends itself.
        """
        while True:
            try:
                await self.ready(timeout=_LAST_RETRY_SECONDS)
                return
            except BrokerRefusedError:
                raise
            except BrokerError:
                continue  # it is logged, and the keeper goes on trying

    async def close(self) -> None:
        """Close for good. May be called twice, and before the connection was open."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def publish(
        self, exchange: str, routing_key: str, envelope: Envelope, copy_to: str | None = None
    ) -> asyncio.Future[None]:
        """Publish a persistent, mandatory message; the future ends when the broker has confirmed it.

        `copy_to` is a second routing key on the same exchange that the receivers do not see. The future fails with
        UnroutableError, NotConfirmedError or ConnectionLostError (which means: unknown).
        """
        if self._session is None:
            return _failed(ConnectionLostError("not connected to the broker"))
        return self._session.publish(exchange, routing_key, envelope, copy_to)

    async def publish_until_confirmed(self, exchange: str, routing_key: str, envelope: Envelope) -> None:
        """Publish, and again after every reconnect until it is confirmed: for what must not be lost.

        A receiver may see it twice. Raises UnroutableError only.
        """
        while True:
            try:
                await self.publish(exchange, routing_key, envelope)
                return
            except (ConnectionLostError, NotConfirmedError) as exc:
                logger.debug("publishing again after: %s", exc)
                await asyncio.sleep(_FIRST_RETRY_SECONDS)
                with contextlib.suppress(BrokerRefusedError):  # it may be mended, and this must not be lost
                    await self.ready_at_last()

    async def consume(self, subscription: Subscription) -> None:
        """Consume from a queue, now if the connection is open and again after every reconnect."""
        self._subscriptions.append(subscription)
        if self._session is not None:
            await self._session.consume(subscription)

    async def cancel_consumers(self) -> None:
        """Stop all deliveries; what was delivered can still be acked."""
        self._subscriptions.clear()
        if self._session is not None:
            await self._session.cancel_consumers()

    def set_reply_queue(self, reply_queue: ReplyQueue) -> None:
        """Have a reply queue on this connection; call it before the first `ready`."""
        self._reply_queue = reply_queue

    def ack(self, delivery: Delivery, *, multiple: bool = False) -> None:
        """Ack a delivery, with `multiple` all before it too. Without effect if its connection is gone."""
        if self._session is not None and self.holds(delivery):
            self._session.ack(delivery.tag, multiple=multiple)

    def give_back(self, delivery: Delivery) -> None:
        """Return a delivery to its queue. Without effect if its connection is gone: it is back already."""
        if self._session is not None and self.holds(delivery):
            self._session.give_back(delivery.tag)

    def holds(self, delivery: Delivery) -> bool:
        """Return True while a delivery is still ours to ack: its connection has not been lost since."""
        return self._session is not None and delivery.epoch == self._session.epoch

    async def _keep_open(self) -> None:
        failures = 0
        while True:
            try:
                session = await self._open_session()
            except BrokerError as exc:
                failures += 1
                self._note_failure(exc)
                await self._pause(failures)
                continue
            failures = 0
            self._note_success(session)
            error = await session.closed
            self._session = None
            logger.warning("the connection to the broker is lost: %s", error)

    async def _open_session(self) -> _Session:
        self._epoch += 1
        session = _Session(await _open_pika_connection(self._parameters), self._parameters, self._epoch)
        try:
            await session.open_channel()
            await session.declare(self._topology)
            if self._reply_queue is not None:
                await session.consume_replies(self._reply_queue)
            for subscription in self._subscriptions:
                await session.consume(subscription)
        except BaseException:
            await session.close()
            raise
        return session

    def _note_failure(self, error: BrokerError) -> None:
        if str(error) != str(self._last_error):
            logger.warning("%s", error)
        self._last_error = error
        if isinstance(error, BrokerRefusedError):
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_exception(error)

    def _note_success(self, session: _Session) -> None:
        if self._epoch > 1:
            logger.info("connected to the broker again")
        self._session = session
        self._last_error = None
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _pause(self, failures: int) -> None:
        """Wait longer after every failure, with jitter; not for long if somebody waits for the connection."""
        longest = _FIRST_RETRY_SECONDS if self._waiters else _LAST_RETRY_SECONDS
        seconds = min(longest, _FIRST_RETRY_SECONDS * 2**failures) * random.uniform(0.7, 1.3)
        self._hurry.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except TimeoutError:
            return


class _Session:
    """Connection and channel of one epoch. It ends at the first fault of either, and `closed` tells why."""

    def __init__(self, connection: AsyncioConnection, parameters: Any, epoch: int) -> None:
        self._connection = connection
        self._parameters = parameters
        self.epoch = epoch
        self.closed: asyncio.Future[BrokerError] = asyncio.get_running_loop().create_future()
        self._socket_closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._channel: Any = None
        self._consumer_tags: list[str] = []
        self._publish_number = 0
        self._unconfirmed: dict[int, tuple[str | None, asyncio.Future[None]]] = {}
        self._returned: set[str | None] = set()
        connection.add_on_close_callback(lambda _, error: self._on_connection_closed(error))

    async def open_channel(self) -> None:
        self._channel = await self._call(partial(self._connection.channel, on_open_callback=None), "on_open_callback")
        self._channel.add_on_close_callback(lambda _, error: self._end(error))
        self._channel.add_on_cancel_callback(lambda frame: self._end_by_cancel(frame.method.consumer_tag))
        self._channel.add_on_return_callback(self._on_return)
        await self._call(partial(self._channel.confirm_delivery, self._on_confirm))

    async def declare(self, wanted: Topology) -> None:
        for exchange in wanted.exchanges:
            await self._call(
                partial(self._channel.exchange_declare, exchange.name, exchange_type=exchange.kind, durable=True)
            )
        for queue in wanted.queues:
            await self._call(
                partial(self._channel.queue_declare, queue.name, durable=True, arguments=dict(queue.arguments))
            )
        for binding in wanted.bindings:
            await self._bind(binding.queue, binding.exchange, binding.routing_key)

    async def consume(self, subscription: Subscription) -> None:
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
        await self._bind(queue, replies.exchange, replies.routing_key)
        await self._consume(queue, replies.on_delivery, auto_ack=True)

    async def cancel_consumers(self) -> None:
        tags, self._consumer_tags = self._consumer_tags, []
        for tag in tags:
            await self._call(partial(self._channel.basic_cancel, tag))

    def publish(self, exchange: str, routing_key: str, envelope: Envelope, copy_to: str | None) -> asyncio.Future[None]:
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            self._channel.basic_publish(
                exchange, routing_key, envelope.body, _properties(envelope, copy_to), mandatory=True
            )
        except pika_errors.AMQPError as exc:
            confirmed.set_exception(self._map(exc))
            return confirmed
        self._publish_number += 1
        self._unconfirmed[self._publish_number] = (envelope.message_id, confirmed)
        return confirmed

    def ack(self, tag: int, *, multiple: bool) -> None:
        if self._channel.is_open:
            self._channel.basic_ack(tag, multiple)

    def give_back(self, tag: int) -> None:
        if self._channel.is_open:
            self._channel.basic_nack(tag, requeue=True)

    async def close(self) -> None:
        if self._connection.is_open:
            self._connection.close()
        await asyncio.wait([self._socket_closed], timeout=_CLOSE_SECONDS)

    async def _consume(self, queue: str, on_delivery: Callable[[Delivery], None], *, auto_ack: bool) -> None:
        on_message = partial(self._on_message, queue, on_delivery)
        frame = await self._call(partial(self._channel.basic_consume, queue, on_message, auto_ack=auto_ack))
        self._consumer_tags.append(frame.method.consumer_tag)

    async def _bind(self, queue: str, exchange: str, routing_key: str) -> None:
        await self._call(partial(self._channel.queue_bind, queue, exchange, routing_key=routing_key))

    async def _call(self, method: Callable[..., Any], callback_name: str = "callback") -> Any:
        """Call one of pika's methods and wait for the broker's answer, or for the session's end."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            method(**{callback_name: answer.set_result})
        except pika_errors.AMQPError as exc:
            raise self._map(exc) from exc
        await asyncio.wait([answer, self.closed], return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise self.closed.result()
        return answer.result()

    def _on_message(
        self,
        queue: str,
        on_delivery: Callable[[Delivery], None],
        _channel: Any,
        method: Any,
        properties: Any,
        body: bytes,
    ) -> None:
        envelope = Envelope(
            body,
            properties.content_type,
            properties.message_id,
            properties.type,
            properties.reply_to,
            properties.headers,
        )
        on_delivery(Delivery(method.delivery_tag, self.epoch, queue, method.redelivered, envelope))

    def _on_return(self, _channel: Any, _method: Any, properties: Any, _body: bytes) -> None:
        # The broker returns an unroutable message first and confirms it afterwards.
        self._returned.add(properties.message_id)

    def _on_confirm(self, frame: Any) -> None:
        confirm = frame.method
        for number in self._confirmed_numbers(confirm.delivery_tag, confirm.multiple):
            message_id, confirmed = self._unconfirmed.pop(number)
            self._settle(confirmed, message_id, accepted=isinstance(confirm, pika.spec.Basic.Ack))

    def _confirmed_numbers(self, last: int, multiple: bool) -> Iterable[int]:
        if multiple:
            return [number for number in self._unconfirmed if number <= last]
        return (last,) if last in self._unconfirmed else ()

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
        self._end(ConnectionLostError(f"the broker cancelled consumer {consumer_tag}: its queue was deleted or moved"))

    def _on_connection_closed(self, error: BaseException) -> None:
        self._end(error)
        self._socket_closed.set_result(None)

    def _end(self, error: BaseException) -> None:
        if self.closed.done():
            return
        mapped = self._map(error)
        self.closed.set_result(mapped)
        unconfirmed, self._unconfirmed = self._unconfirmed, {}
        for _, confirmed in unconfirmed.values():
            if not confirmed.done():
                confirmed.set_exception(ConnectionLostError(f"closed before the broker confirmed: {mapped}"))
        if self._connection.is_open:
            self._connection.close()

    def _map(self, error: BaseException) -> BrokerError:
        return _map_error(error, self._parameters)


def _properties(envelope: Envelope, copy_to: str | None) -> Any:
    headers = envelope.headers if copy_to is None else {**(envelope.headers or {}), "BCC": [copy_to]}
    return pika.BasicProperties(
        content_type=envelope.content_type,
        headers=headers,
        delivery_mode=_PERSISTENT,
        reply_to=envelope.reply_to,
        message_id=envelope.message_id,
        type=envelope.kind,
    )


def _failed(error: BrokerError) -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future


async def _open_pika_connection(parameters: Any) -> AsyncioConnection:
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[Any] = loop.create_future()
    AsyncioConnection.create_connection([parameters], opened.set_result, custom_ioloop=loop)
    try:
        result = await asyncio.shield(opened)
    except asyncio.CancelledError:
        await _abandon(opened)
        raise
    if isinstance(result, AsyncioConnection):
        return result
    raise _map_error(result, parameters)


async def _abandon(opened: asyncio.Future[Any]) -> None:
    """Let an attempt to connect end by itself: pika 1.4 fails an assertion when it is aborted in the handshake."""
    await asyncio.wait([opened], timeout=_CLOSE_SECONDS)
    if opened.done() and isinstance(opened.result(), AsyncioConnection):
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        opened.result().add_on_close_callback(lambda *_: closed.set_result(None))
        opened.result().close()
        await asyncio.wait([closed], timeout=_CLOSE_SECONDS)


def hidden_password(url: str) -> str:
    """Return a URL without its password, for messages and logs."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{parts.username}:***@{host}").geturl()


def _connection_parameters(settings: Settings, purpose: str) -> Any:
    parameters = _parse_url(settings.broker_url)
    parameters.heartbeat = settings.heartbeat
    parameters.socket_timeout = settings.connect_timeout
    parameters.stack_timeout = settings.connect_timeout
    parameters.blocked_connection_timeout = _BLOCKED_SECONDS
    parameters.connection_attempts = 1
    parameters.client_properties = {
        "connection_name": f"limetask {purpose} {socket.gethostname()}:{os.getpid()}",
        "product": "limetask",
    }
    return parameters


def _parse_url(url: str) -> Any:
    example = "amqp://user:password@host:5672/vhost"
    try:
        scheme = urlsplit(url).scheme
        if scheme not in ("amqp", "amqps"):
            raise BrokerUrlError(f"the broker's URL must look like {example}: it starts with {scheme or url[:10]!r}")
        return pika.URLParameters(url)
    except (ValueError, TypeError, AttributeError) as exc:
        raise BrokerUrlError(
            f"the broker's URL must look like {example} (percent-encode special characters): {exc}"
        ) from exc


def _map_error(error: BaseException, parameters: Any) -> BrokerError:
    """Return our error for one of pika's: the only place that knows both."""
    match _root(error):
        case BrokerError() as own:
            return own
        case pika_errors.ProbableAuthenticationError() | pika_errors.AuthenticationError():
            return BrokerRefusedError(
                f"the broker at {_address(parameters)} refused user {parameters.credentials.username!r}: "
                "check user and password in LIMETASK_BROKER_URL"
            )
        case pika_errors.ProbableAccessDeniedError() as refused:
            return _refused_vhost(parameters, refused)
        case pika_errors.ConnectionClosedByBroker(reply_code=code) as closed if code in (403, 530):
            return _refused_vhost(parameters, closed)
        case pika_errors.ChannelClosedByBroker(reply_code=code) as closed if code in (403, 404, 405, 406):
            return BrokerRefusedError(f"the broker refused: {closed.reply_text}")
        case pika_errors.ConnectionClosed() | pika_errors.ChannelClosed() as closed:
            return ConnectionLostError(f"closed with {closed.reply_code}: {closed.reply_text}")
        case pika_errors.IncompatibleProtocolError() | pika_errors.ProtocolSyntaxError():
            return _unreachable(parameters, "what answers there hangs up, or speaks no AMQP 0-9-1")
        case connection_workflow.AMQPConnectorSocketConnectError() | OSError() as unreachable:
            return _unreachable(parameters, str(unreachable) or type(unreachable).__name__)
        case connection_workflow.AMQPConnectorStackTimeout() | connection_workflow.AMQPConnectorException():
            return _unreachable(parameters, "it did not complete the AMQP handshake in time")
        case pika_errors.AMQPHeartbeatTimeout():
            return ConnectionLostError("the broker gave no sign of life")
        case other:
            return ConnectionLostError(str(other) or type(other).__name__)


def _root(error: BaseException) -> BaseException:
    """Unwrap the layers in which pika reports why a connection could not be opened."""
    match error:
        case connection_workflow.AMQPConnectionWorkflowFailed(exceptions=[*_, last]):
            return _root(last)
        case connection_workflow.AMQPConnectorPhaseErrorBase(exception=BaseException() as inner):
            return _root(inner)
        case pika_errors.AMQPConnectionError(args=[BaseException() as inner]):
            return _root(inner)
    return error


def _refused_vhost(parameters: Any, error: Exception) -> BrokerRefusedError:
    return BrokerRefusedError(
        f"the broker at {_address(parameters)} refused virtual host {parameters.virtual_host!r} for user "
        f"{parameters.credentials.username!r}: check the path of LIMETASK_BROKER_URL and the user's permissions "
        f"({getattr(error, 'reply_text', None) or error})"
    )


def _unreachable(parameters: Any, reason: str) -> BrokerUnreachableError:
    return BrokerUnreachableError(
        f"no RabbitMQ at {_address(parameters)} ({reason}): start it, or set LIMETASK_BROKER_URL to where it is"
    )


def _address(parameters: Any) -> str:
    return f"{parameters.host}:{parameters.port}"
