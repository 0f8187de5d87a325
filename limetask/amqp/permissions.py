"""Asks what the broker's user may do, without doing it.

The broker looks at permissions before it looks at anything else. So each question is a request that is wrong in a way
that the broker sees later, but before it acts: 403 means that the user may not, 406 that it may. A message with an
expiration that is no number is never routed, a consumer with a priority and a queue with a length that are no numbers
are never made. The broker logs each of these as an error of a channel.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pika
from pika import exceptions as pika_errors
from pika.adapters.asyncio_connection import AsyncioConnection

from limetask.amqp.declaring import answer_to
from limetask.amqp.faults import map_error
from limetask.amqp.session import open_pika_connection
from limetask.amqp.url import connection_parameters
from limetask.settings import Settings

_ACCESS_REFUSED = 403
_PRECONDITION_FAILED = 406
_CLOSE_SECONDS = 2.0
# What the broker's log shows of the question.
_WRONG_ON_PURPOSE = "limetask doctor only asks"

Closed = asyncio.Future[BaseException]
Question = Callable[[Any, Closed], Awaitable[Any]]


class Permissions:
    """Answers what a user may do; every method raises BrokerError if the broker cannot be asked."""

    def __init__(self, connection: AsyncioConnection, parameters: Any) -> None:
        self._connection = connection
        self._parameters = parameters

    @property
    def user(self) -> str:
        """The user of LIMETASK_BROKER_URL."""
        name: str = self._parameters.credentials.username
        return name

    async def may_write(self, exchange: str, routing_key: str) -> bool:
        """Return whether the user may publish to an exchange that exists. Nothing is published."""

        async def ask(channel: Any, closed: Closed) -> None:
            properties = pika.BasicProperties(expiration=_WRONG_ON_PURPOSE)
            channel.basic_publish(exchange, routing_key, b"", properties)
            await answer_to(partial(channel.basic_qos, prefetch_count=1), closed)  # a publish alone has no answer

        return await self._is_permitted(ask)

    async def may_read(self, queue: str) -> bool:
        """Return whether the user may take messages from a queue that exists. None is taken."""

        async def ask(channel: Any, closed: Closed) -> None:
            arguments = {"x-priority": _WRONG_ON_PURPOSE}
            await answer_to(partial(channel.basic_consume, queue, _ignore, arguments=arguments), closed)

        return await self._is_permitted(ask)

    async def may_declare(self, queue: str) -> bool:
        """Return whether the user may declare a queue. None is made, and none changed."""

        async def ask(channel: Any, closed: Closed) -> None:
            arguments = {"x-max-length": _WRONG_ON_PURPOSE}
            await answer_to(partial(channel.queue_declare, queue, durable=True, arguments=arguments), closed)

        return await self._is_permitted(ask)

    async def may_have_reply_queue(self, exchange: str, routing_key: str) -> bool:
        """Return whether the user may have a queue of its own that hears of `exchange`: it has one for a moment."""

        async def ask(channel: Any, closed: Closed) -> None:
            declare = partial(channel.queue_declare, "", exclusive=True, auto_delete=True)
            queue = (await answer_to(declare, closed)).method.queue
            await answer_to(partial(channel.queue_bind, queue, exchange, routing_key=routing_key), closed)
            await answer_to(partial(channel.basic_consume, queue, _ignore), closed)  # with its consumer it goes

        return await self._is_permitted(ask)

    async def _is_permitted(self, ask: Question) -> bool:
        closed: Closed = asyncio.get_running_loop().create_future()
        channel = await self._open_channel(closed)
        try:
            await ask(channel, closed)
        except pika_errors.ChannelClosedByBroker as answer:
            if answer.reply_code in (_ACCESS_REFUSED, _PRECONDITION_FAILED):
                return bool(answer.reply_code == _PRECONDITION_FAILED)
            raise map_error(answer, self._parameters) from answer
        except pika_errors.AMQPError as exc:
            raise map_error(exc, self._parameters) from exc
        finally:
            await _close(channel, closed)
        return True

    async def _open_channel(self, closed: Closed) -> Any:
        def open_channel(on_open: Callable[[Any], None]) -> None:
            channel = self._connection.channel(on_open_callback=on_open)
            channel.add_on_close_callback(lambda _, error: closed.set_result(error))

        try:
            return await answer_to(open_channel, closed, "on_open")
        except pika_errors.AMQPError as exc:
            raise map_error(exc, self._parameters) from exc


@asynccontextmanager
async def ask_permissions(settings: Settings, purpose: str) -> AsyncIterator[Permissions]:
    """Give a way to ask, on a connection of its own that is closed afterwards.

    `purpose` is what the broker's connection list shows. Raises ConfigurationError for wrong settings, and BrokerError
    if the broker does not answer or refuses the user.
    """
    parameters = connection_parameters(settings, purpose)
    connection = await open_pika_connection(parameters)
    closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    connection.add_on_close_callback(lambda *_: closed.set_result(None))
    try:
        yield Permissions(connection, parameters)
    finally:
        if connection.is_open:
            connection.close()
        await asyncio.wait([closed], timeout=_CLOSE_SECONDS)


async def _close(channel: Any, closed: Closed) -> None:
    if channel.is_open:
        channel.close()
        await asyncio.wait([closed], timeout=_CLOSE_SECONDS)


def _ignore(*_delivery: Any) -> None:
    """Take no notice of a delivery: closing the channel returns it."""
