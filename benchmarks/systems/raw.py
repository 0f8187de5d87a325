"""The raw limit: what pika alone does on the same queues, without a body, a recorded start or a store."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from benchmarks.place import Place
from benchmarks.systems.system import Sender, System

_PIPELINE = 1000
_HEADERS_LIKE_LIMETASKS = {
    "limetask": 1,
    "task_id": "01a2b3c4-d5e6-8f70-8123-456789abcdef",
    "task": "benchmarks.apps.limetask_app.noop",
    "app": "acme",
    "attempt": 1,
}


class _Sender:
    def __init__(self, place: Place) -> None:
        import uvloop

        self._loop = uvloop.new_event_loop()
        self._place = place
        self._published = 0
        self._unconfirmed: dict[int, None] = {}
        self._pipeline = 1
        self._room: asyncio.Future[None] = self._loop.create_future()
        self._run(self._open())

    def send_each(self, _task: str, arguments: Sequence[str]) -> list[Any]:
        self._run(self._send(arguments, pipeline=1))
        return []

    def send_many(self, _task: str, arguments: Sequence[str]) -> list[Any]:
        self._run(self._send(arguments, pipeline=_PIPELINE))
        return []

    def close(self) -> None:
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(coroutine)

    async def _open(self) -> None:
        import pika

        from benchmarks.apps.raw_amqp import confirm, declare, open_channel

        self._properties = pika.BasicProperties(
            content_type="application/msgpack", delivery_mode=2, headers=_HEADERS_LIKE_LIMETASKS
        )

        self._channel = await open_channel(self._place.broker_url)
        self._names = await declare(self._channel, self._place)
        await confirm(self._channel, self._on_confirm)

    def _on_confirm(self, number: int, multiple: bool) -> None:
        if multiple:
            for one in [one for one in self._unconfirmed if one <= number]:
                del self._unconfirmed[one]
        else:
            del self._unconfirmed[number]
        if len(self._unconfirmed) < self._pipeline and not self._room.done():
            self._room.set_result(None)

    async def _send(self, arguments: Sequence[str], pipeline: int) -> None:
        self._pipeline = pipeline
        for argument in arguments:
            self._publish(argument)
            if len(self._unconfirmed) >= pipeline:
                await self._until_room()
        self._pipeline = 1
        if self._unconfirmed:
            await self._until_room()

    def _publish(self, argument: str) -> None:
        self._published += 1
        self._unconfirmed[self._published] = None
        queue = self._names.task_queue("default")
        self._channel.basic_publish(
            self._names.tasks_exchange, queue, argument.encode(), self._properties, mandatory=True
        )

    async def _until_room(self) -> None:
        self._room = self._loop.create_future()
        await self._room


def _sender(place: Place) -> Sender:
    return _Sender(place)


def _command(_processes: int) -> Sequence[str | Path]:
    return [sys.executable, "-m", "benchmarks.apps.raw_worker"]


RAW = System(
    name="raw",
    title="raw limit: pika alone",
    packages=("pika",),
    module="pika",
    results="drained",
    notes={
        "queue": "quorum, as limetask's",
        "sends confirmed": "yes",
        "ack": "late: once its event is confirmed",
        "event a task": "yes, confirmed",
        "at a time": "runs no bodies",
        "settings": "one process consumes, publishes an event and acks; another drains the events",
        "sends many by": f"{_PIPELINE} unconfirmed at a time",
        "waits by": "cannot",
    },
    make_client=_sender,
    command=_command,
    recorder="drain-results",
    runs_tasks=False,
)
