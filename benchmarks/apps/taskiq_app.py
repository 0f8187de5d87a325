"""The tasks for TaskIQ: coroutines, which it is made for and runs fastest."""

from __future__ import annotations

import asyncio

from taskiq_aio_pika import AioPikaBroker, Exchange, Queue
from taskiq_redis import RedisAsyncResultBackend

from benchmarks.place import Place
from benchmarks.starts import note_start

PREFETCH = 100

_place = Place.from_environment()

broker = AioPikaBroker(
    _place.broker_url,
    qos=PREFETCH,
    exchange=Exchange(name=_place.namespace),
    task_queues=[Queue(name=_place.namespace)],
    dead_letter_queue=Queue(name=f"{_place.namespace}.dead"),
).with_result_backend(RedisAsyncResultBackend(_place.redis_url))


@broker.task
async def noop(argument: str) -> None:
    """Do nothing."""
    note_start(argument)


@broker.task
async def sleep_1_ms(argument: str) -> None:
    """Sleep for a millisecond."""
    note_start(argument)
    await asyncio.sleep(0.001)


@broker.task
async def sleep_10_ms(argument: str) -> None:
    """Sleep for ten milliseconds."""
    note_start(argument)
    await asyncio.sleep(0.01)
