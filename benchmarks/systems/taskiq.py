"""TaskIQ with taskiq-aio-pika, its results in Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.place import Place
from benchmarks.systems.system import TASKS, Client, System, program

T = TypeVar("T")

_MODULE = "benchmarks.apps.taskiq_app"
_WAIT_SECONDS = 60.0
_POLL_SECONDS = 0.001
_AT_ONCE = 500


class _Client:
    def __init__(self) -> None:
        import uvloop

        from benchmarks.apps import taskiq_app

        self._loop = uvloop.new_event_loop()
        self._broker = taskiq_app.broker
        self._tasks = {name: getattr(taskiq_app, name) for name in TASKS}
        self._run(self._broker.startup())

    def send_each(self, task: str, arguments: Sequence[str]) -> list[Any]:
        return self._run(self._send_each(task, arguments))

    def send_many(self, task: str, arguments: Sequence[str]) -> list[Any]:
        return self._run(self._send_many(task, arguments))

    def round_trips(self, task: str, arguments: Sequence[str]) -> list[float]:
        return self._run(self._round_trips(task, arguments))

    def read_each(self, handles: Sequence[Any]) -> list[float]:
        return self._run(self._read_each(handles))

    def close(self) -> None:
        self._run(self._broker.shutdown())
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        asyncio.set_event_loop(self._loop)
        return self._loop.run_until_complete(coroutine)

    async def _send_each(self, task: str, arguments: Sequence[str]) -> list[Any]:
        kiq = self._tasks[task].kiq
        return [await kiq(argument) for argument in arguments]

    async def _send_many(self, task: str, arguments: Sequence[str]) -> list[Any]:
        kiq = self._tasks[task].kiq
        handles = []
        for first in range(0, len(arguments), _AT_ONCE):
            batch = arguments[first : first + _AT_ONCE]
            handles += await asyncio.gather(*(kiq(argument) for argument in batch))
        return handles

    async def _round_trips(self, task: str, arguments: Sequence[str]) -> list[float]:
        return [await self._round_trip(task, argument) for argument in arguments]

    async def _round_trip(self, task: str, argument: str) -> float:
        begun = time.perf_counter()
        handle = await self._tasks[task].kiq(argument)
        await handle.wait_result(check_interval=_POLL_SECONDS, timeout=_WAIT_SECONDS)
        return time.perf_counter() - begun

    async def _read_each(self, handles: Sequence[Any]) -> list[float]:
        return [await self._read(handle) for handle in handles]

    async def _read(self, handle: Any) -> float:
        begun = time.perf_counter()
        await handle.get_result()
        return time.perf_counter() - begun


def _client(_place: Place) -> Client:
    return _Client()


def _command(processes: int) -> Sequence[str | Path]:
    return [program("taskiq"), "worker", f"{_MODULE}:broker", "--workers", str(processes), "--log-level", "WARNING"]


TASKIQ_REDIS = System(
    name="taskiq-redis",
    title="TaskIQ, Redis",
    packages=("taskiq", "taskiq-aio-pika", "taskiq-redis", "aio-pika", "redis"),
    module="taskiq_aio_pika",
    results="redis",
    notes={
        "queue": "quorum (default)",
        "sends confirmed": "yes (default)",
        "ack": "late: once the result is saved (default)",
        "event a task": "no",
        "at a time": "100 coroutines a process (default)",
        "settings": "`qos=100`, coroutines as tasks, uvloop",
        "sends many by": f"`asyncio.gather` of {_AT_ONCE} sends",
        "waits by": f"asking Redis every {_POLL_SECONDS * 1000:g} ms",
    },
    make_client=_client,
    command=_command,
)
