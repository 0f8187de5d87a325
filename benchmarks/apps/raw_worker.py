"""The raw limit: one process consumes tasks, publishes an event for each with confirm, and acks; another drains these.

It starts no body, records no start, and has no store: what a worker on this broker and this client library could do at
most if everything else were free.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from typing import Any

import pika

from benchmarks.apps.raw_amqp import confirm, consume, declare, open_channel, run
from benchmarks.drained import DrainedCount
from benchmarks.place import Place
from benchmarks.starts import note_start

DRAIN = "drain-results"

_EVENT_KEY = "core.task.benchmarks.apps.limetask_app.noop.success.v1"
_EVENT_BYTES = 400  # as limetask's event for this task
_ACK_EVERY = 100
_ACK_SECONDS = 0.01


async def work(place: Place) -> None:
    """Consume tasks until SIGTERM."""
    tasks = await open_channel(place.broker_url)
    events = await open_channel(place.broker_url)
    names = await declare(tasks, place)
    properties = pika.BasicProperties(content_type="application/json", delivery_mode=2)
    event = b"x" * _EVENT_BYTES

    # Each delivery has one publish, so that both are numbered alike.
    def on_message(_channel: Any, _method: Any, _properties: Any, body: bytes) -> None:
        note_start(body[-100:].decode())
        events.basic_publish(names.completions_exchange, _EVENT_KEY, event, properties, mandatory=True)

    await confirm(events, lambda number, multiple: tasks.basic_ack(number, multiple))
    await consume(tasks, names.task_queue("default"), on_message)
    await _terminated()


async def drain(place: Place) -> None:
    """Consume and ack events until SIGTERM."""
    channel = await open_channel(place.broker_url)
    names = await declare(channel, place)
    drained = DrainedCount(place)
    acked = seen = 0

    def on_message(_channel: Any, method: Any, _properties: Any, _body: bytes) -> None:
        nonlocal seen
        seen = method.delivery_tag
        if seen - acked >= _ACK_EVERY:
            ack()

    def ack() -> None:
        nonlocal acked
        if seen > acked:
            channel.basic_ack(seen, multiple=True)
            acked = seen
            drained.set(seen)

    await consume(channel, names.results_queue, on_message)
    stopped = asyncio.ensure_future(_terminated())
    while not stopped.done():
        ack()
        await asyncio.wait([stopped], timeout=_ACK_SECONDS)


async def _terminated() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


def main() -> None:
    """Run one of the two; the first starts the second."""
    place = Place.from_environment()
    if DRAIN in sys.argv:
        run(drain(place))
        return
    draining = subprocess.Popen([sys.executable, "-m", "benchmarks.apps.raw_worker", DRAIN])
    try:
        run(work(place))
    finally:
        draining.terminate()
        draining.wait()


if __name__ == "__main__":
    main()
