"""Declares what must exist on the broker, and removes it. A user who may not declare it checks that it is there."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from typing import Any

import pika
from pika import exceptions as pika_errors
from pika.adapters.asyncio_connection import AsyncioConnection

from limetask.amqp.faults import map_error
from limetask.amqp.url import address_of
from limetask.errors import BrokerRefusedError
from limetask.topology import Binding, Exchange, ExchangeBinding, Queue, Topology

_ACCESS_REFUSED = 403
_NOT_FOUND = 404
_CLOSE_SECONDS = 2.0

Call = Callable[..., Any]


async def answer_to(call: Call, closed: asyncio.Future[Any], callback_name: str = "callback") -> Any:
    """Call one of pika's methods and wait for the broker's answer; raises what `closed` holds if that comes first."""
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    call(**{callback_name: answer.set_result})
    await asyncio.wait([answer, closed], return_when=asyncio.FIRST_COMPLETED)
    if not answer.done():
        raise closed.result()
    return answer.result()


class Declarer:
    """Declares and removes on channels of its own, since the broker closes a channel with each refusal."""

    def __init__(self, connection: AsyncioConnection, parameters: Any, namespace: str) -> None:
        self._connection = connection
        self._parameters = parameters
        self._namespace = namespace

    async def declare(self, wanted: Topology) -> None:
        """Declare everything; with a user who may not, make sure that everything is there.

        Bindings cannot be asked for in AMQP: whoever may not declare trusts those who declared queues to have bound
        them. Raises BrokerRefusedError for what is missing, ChannelClosedByBroker for what differs, and
        ConnectionLostError.
        """
        try:
            async with self._channel() as channel:
                await channel.declare_all(wanted)
        except pika_errors.ChannelClosedByBroker as refused:
            if refused.reply_code != _ACCESS_REFUSED:
                raise
            await self._check(wanted, refused)
        else:
            await self._bind(wanted)

    async def unbind(self, bindings: Iterable[Binding]) -> None:
        """Take bindings away; those that are not there make no difference. Raises ChannelClosedByBroker."""
        async with self._channel() as channel:
            for binding in bindings:
                await channel.unbind(binding)

    async def counts(self, queue: str) -> tuple[int, int] | None:
        """Return how many messages wait in a queue and how many consume from it, None if there is no such queue."""
        try:
            async with self._channel() as channel:
                return await channel.counts(queue)
        except pika_errors.ChannelClosedByBroker as missing:
            if missing.reply_code != _NOT_FOUND:
                raise
            return None

    async def is_empty(self, queue: str) -> bool:
        """Return True if the queue itself says so: unlike its counts, this needs its leader. Leaves it as it is.

        Waits for the answer, and raises ChannelClosedByBroker if the user may not read from it.
        """
        async with self._channel() as channel:
            return await channel.is_empty(queue)

    async def delete(self, queue: str) -> int:
        """Delete a queue and return how many messages were in it; raises ChannelClosedByBroker."""
        async with self._channel() as channel:
            return await channel.delete(queue)

    async def _check(self, wanted: Topology, refused: pika_errors.ChannelClosedByBroker) -> None:
        objects: tuple[Exchange | Queue, ...] = (*wanted.exchanges, *wanted.queues)
        async with self._channel() as channel:
            for one in objects:
                try:
                    await channel.check(one)
                except pika_errors.ChannelClosedByBroker as missing:
                    fault = "is missing" if missing.reply_code == _NOT_FOUND else _uncheckable(missing.reply_text)
                    raise refused_declaration(
                        one, fault, refused.reply_text, self._parameters, self._namespace
                    ) from missing

    async def _bind(self, wanted: Topology) -> None:
        async with self._channel() as channel:
            for binding in wanted.bindings:
                try:
                    await channel.bind(binding)
                except pika_errors.ChannelClosedByBroker as refused:
                    if refused.reply_code != _ACCESS_REFUSED:
                        raise
                    raise refused_binding(binding, refused.reply_text, self._parameters, self._namespace) from refused
            # To bind these needs the same permissions as to declare the levels of delays, which has been done.
            for exchange_binding in wanted.exchange_bindings:
                await channel.bind_exchange(exchange_binding)

    @contextlib.asynccontextmanager
    async def _channel(self) -> AsyncIterator[_Channel]:
        channel = _Channel(self._parameters)
        await channel.open(self._connection)
        try:
            yield channel
        finally:
            await channel.close()


class _Channel:
    """A channel for what the broker may refuse. Its refusal is raised as pika tells it, a lost connection as ours."""

    def __init__(self, parameters: Any) -> None:
        self._parameters = parameters
        self._closed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._channel: Any = None

    async def open(self, connection: AsyncioConnection) -> None:
        def open_channel(on_open: Callable[[Any], None]) -> None:
            self._channel = connection.channel(on_open_callback=on_open)
            self._channel.add_on_close_callback(lambda _, error: self._on_closed(error))

        await answer_to(open_channel, self._closed, "on_open")

    async def close(self) -> None:
        if self._channel.is_open:
            self._channel.close()
            await asyncio.wait([self._closed], timeout=_CLOSE_SECONDS)

    async def declare_all(self, wanted: Topology) -> None:
        for exchange in wanted.exchanges:
            await self._answer_to(
                partial(
                    self._channel.exchange_declare,
                    exchange.name,
                    exchange_type=exchange.kind,
                    durable=True,
                    arguments=dict(exchange.arguments),
                )
            )
        for queue in wanted.queues:
            await self._answer_to(
                partial(self._channel.queue_declare, queue.name, durable=True, arguments=dict(queue.arguments))
            )

    async def check(self, one: Exchange | Queue) -> None:
        """Ask whether it exists, which needs no permission."""
        declare = self._channel.queue_declare if isinstance(one, Queue) else self._channel.exchange_declare
        await self._answer_to(partial(declare, one.name, passive=True))

    async def bind(self, binding: Binding) -> None:
        await self._answer_to(
            partial(self._channel.queue_bind, binding.queue, binding.exchange, routing_key=binding.routing_key)
        )

    async def unbind(self, binding: Binding) -> None:
        await self._answer_to(
            partial(self._channel.queue_unbind, binding.queue, binding.exchange, routing_key=binding.routing_key)
        )

    async def counts(self, queue: str) -> tuple[int, int]:
        declared = (await self._answer_to(partial(self._channel.queue_declare, queue, passive=True))).method
        return declared.message_count, declared.consumer_count

    async def is_empty(self, queue: str) -> bool:
        def get(callback: Callable[[bool], None]) -> None:
            self._channel.add_callback(lambda _: callback(True), [pika.spec.Basic.GetEmpty])
            self._channel.basic_get(queue, lambda *_: callback(False))  # it goes back with the channel

        return bool(await self._answer_to(get))

    async def delete(self, queue: str) -> int:
        deleted = await self._answer_to(partial(self._channel.queue_delete, queue))
        count: int = deleted.method.message_count
        return count

    async def bind_exchange(self, binding: ExchangeBinding) -> None:
        await self._answer_to(
            partial(self._channel.exchange_bind, binding.destination, binding.exchange, routing_key=binding.routing_key)
        )

    def _on_closed(self, error: BaseException) -> None:
        is_refusal = isinstance(error, pika_errors.ChannelClosedByBroker)
        self._closed.set_result(error if is_refusal else map_error(error, self._parameters))

    async def _answer_to(self, call: Call) -> Any:
        return await answer_to(call, self._closed)


# What follows is told by both client libraries: pika, and aio-pika in `limetask.aio`. `parameters` are pika's in both.


def refused_declaration(
    one: Exchange | Queue, fault: str, reply_text: str, parameters: Any, namespace: str
) -> BrokerRefusedError:
    """Return the error for what the user may not declare, and which has a fault."""
    return BrokerRefusedError(
        f"{type(one).__name__.lower()} {one.name!r} {fault} at {address_of(parameters)}, and user "
        f"{parameters.credentials.username!r} may not declare it ({reply_text}): run `limetask setup` as a user who "
        f"has the permission to configure, or give it with `{_permit(parameters, namespace)}`"
    )


def refused_binding(binding: Binding, reply_text: str, parameters: Any, namespace: str) -> BrokerRefusedError:
    """Return the error for a queue that the user may declare and not bind."""
    return BrokerRefusedError(
        f"user {parameters.credentials.username!r} may configure queue {binding.queue!r} and not bind it to exchange "
        f"{binding.exchange!r} ({reply_text}): it lacks the permission to write to the queue or to read "
        f"from the exchange. Give both with `{_permit(parameters, namespace)}`, or take away the permission to "
        "configure"
    )


def _uncheckable(reply_text: str) -> str:
    return f"cannot be checked ({reply_text})"


def _permit(parameters: Any, namespace: str) -> str:
    """Return the command that gives a user all that limetask ever needs: new permissions replace all old ones."""
    own = re.escape(f"{namespace}.")
    patterns = (f"^({own}|amq\\.gen)", f"^({own}|amq\\.(gen|default))", f"^({own}|amq\\.gen)")
    user = parameters.credentials.username
    return shlex.join(["rabbitmqctl", "set_permissions", "-p", parameters.virtual_host, user, *patterns])
