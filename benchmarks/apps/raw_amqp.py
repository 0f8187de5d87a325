"""What the raw limit consists of: a connection with one channel of pika's asyncio adapter, the fastest that it has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pika
import uvloop
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.spec import Basic

from benchmarks.place import Place
from limetask.topology import Names, topology

PREFETCH = 500


async def open_channel(broker_url: str) -> Any:
    """Return a channel of a new connection; whoever loses the connection ends with it."""
    opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    AsyncioConnection(
        pika.URLParameters(broker_url),
        on_open_callback=lambda connection: connection.channel(on_open_callback=opened.set_result),
        on_open_error_callback=lambda _connection, error: opened.set_exception(error),
    )
    return await opened


async def confirm(channel: Any, on_confirm: Callable[[int, bool], None]) -> None:
    """Have all publishes confirmed: `on_confirm` gets the number of one, and whether all before it are, too."""
    selected: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    channel.confirm_delivery(lambda frame: _on_confirm(frame.method, on_confirm), callback=selected.set_result)
    await selected


def _on_confirm(method: Any, on_confirm: Callable[[int, bool], None]) -> None:
    assert isinstance(method, Basic.Ack), "the broker has refused a publish"
    on_confirm(method.delivery_tag, method.multiple)


async def consume(channel: Any, queue: str, on_message: Callable[..., None]) -> None:
    """Begin to consume, with a prefetch that is deep enough."""
    await _answer(channel.basic_qos, prefetch_count=PREFETCH)
    channel.basic_consume(queue, on_message)


async def declare(channel: Any, place: Place) -> Names:
    """Declare the queues and exchanges that limetask would, and return their names."""
    names = Names(place.namespace)
    wanted = topology(names)
    for exchange in wanted.exchanges:
        await _answer(
            channel.exchange_declare, exchange.name, exchange.kind, durable=True, arguments=dict(exchange.arguments)
        )
    for queue in wanted.queues:
        await _answer(channel.queue_declare, queue.name, durable=True, arguments=dict(queue.arguments))
    for binding in wanted.bindings:
        await _answer(channel.queue_bind, binding.queue, binding.exchange, binding.routing_key)
    for exchange_binding in wanted.exchange_bindings:
        await _answer(
            channel.exchange_bind,
            exchange_binding.destination,
            exchange_binding.exchange,
            routing_key=exchange_binding.routing_key,
        )
    return names


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on the fastest loop."""
    return uvloop.run(main)


async def _answer(method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a method of the channel, and return the broker's answer."""
    answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    method(*arguments, callback=answered.set_result, **options)
    return await answered
