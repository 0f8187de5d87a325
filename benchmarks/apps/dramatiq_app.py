"""The tasks for Dramatiq."""

from __future__ import annotations

import time

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.place import Place
from benchmarks.starts import note_start

_place = Place.from_environment()
_stores = _place.results == "redis"

broker = RabbitmqBroker(url=_place.broker_url, confirm_delivery=True)
if _stores:
    broker.add_middleware(Results(backend=RedisBackend(url=_place.redis_url), store_results=True))
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=_place.namespace)
def noop(argument: str) -> None:
    """Do nothing."""
    note_start(argument)


@dramatiq.actor(queue_name=_place.namespace)
def sleep_1_ms(argument: str) -> None:
    """Sleep for a millisecond."""
    note_start(argument)
    time.sleep(0.001)


@dramatiq.actor(queue_name=_place.namespace)
def sleep_10_ms(argument: str) -> None:
    """Sleep for ten milliseconds."""
    note_start(argument)
    time.sleep(0.01)
