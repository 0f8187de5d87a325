"""Declares what must exist on the broker. A user who may not declare it checks that it is there."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractQueue
from aiormq.exceptions import ChannelAccessRefused, ChannelClosed, ChannelNotFoundEntity

from limetask.amqp.declaring import refused_binding, refused_declaration
from limetask.topology import Exchange, Queue, Topology


class Declarer:
    """Declares a topology on channels of its own, since the broker closes a channel with each refusal.

    It does the same as `limetask.amqp.declaring.Declarer`, with aio-pika. Its methods raise BrokerRefusedError for what
    is missing, and aio-pika's errors for all else.
    """

    def __init__(self, connection: AbstractConnection, parameters: Any, namespace: str) -> None:
        self._connection = connection
        self._parameters = parameters
        self._namespace = namespace

    async def declare(self, wanted: Topology) -> None:
        """Declare everything; with a user who may not, make sure that everything is there."""
        try:
            async with self._channel() as channel:
                await _declare_all(channel, wanted)
        except ChannelAccessRefused as refused:
            await self._check(wanted, str(refused))
        else:
            await self._bind(wanted)

    async def find_queue(self, name: str) -> AbstractQueue | None:
        """Return a queue, None if there is no such queue."""
        try:
            async with self._channel() as channel:
                return await channel.declare_queue(name, passive=True)
        except ChannelNotFoundEntity:
            return None

    async def _check(self, wanted: Topology, refusal: str) -> None:
        objects: tuple[Exchange | Queue, ...] = (*wanted.exchanges, *wanted.queues)
        async with self._channel() as channel:
            for one in objects:
                try:
                    await _check(channel, one)
                except ChannelClosed as missing:
                    is_missing = isinstance(missing, ChannelNotFoundEntity)
                    fault = "is missing" if is_missing else f"cannot be checked ({missing})"
                    raise refused_declaration(one, fault, refusal, self._parameters, self._namespace) from missing

    async def _bind(self, wanted: Topology) -> None:
        async with self._channel() as channel:
            for binding in wanted.bindings:
                queue = await channel.get_queue(binding.queue, ensure=False)
                try:
                    await queue.bind(binding.exchange, binding.routing_key)
                except ChannelAccessRefused as refused:
                    raise refused_binding(binding, str(refused), self._parameters, self._namespace) from refused

    @contextlib.asynccontextmanager
    async def _channel(self) -> AsyncIterator[AbstractChannel]:
        channel = self._connection.channel()
        await channel.initialize()
        try:
            yield channel
        finally:
            if not channel.is_closed:
                await channel.close()


async def _declare_all(channel: AbstractChannel, wanted: Topology) -> None:
    for exchange in wanted.exchanges:
        await channel.declare_exchange(exchange.name, exchange.kind, durable=True, arguments=dict(exchange.arguments))
    for queue in wanted.queues:
        await channel.declare_queue(queue.name, durable=True, arguments=dict(queue.arguments))


async def _check(channel: AbstractChannel, one: Exchange | Queue) -> None:
    """Ask whether it exists, which needs no permission."""
    if isinstance(one, Queue):
        await channel.declare_queue(one.name, passive=True)
    else:
        await channel.declare_exchange(one.name, one.kind, passive=True)
