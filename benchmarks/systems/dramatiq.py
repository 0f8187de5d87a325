"""Dramatiq 2 on RabbitMQ, with its results in Redis, or without any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.place import Place
from benchmarks.systems.system import TASKS, BlockingClient, Client, System, program

_MODULE = "benchmarks.apps.dramatiq_app"
_THREADS = 8
_PREFETCH = 100
_WAIT_MILLISECONDS = 60_000


class _Client(BlockingClient):
    def __init__(self) -> None:
        from benchmarks.apps import dramatiq_app

        self._broker = dramatiq_app.broker
        self._tasks = {name: getattr(dramatiq_app, name) for name in TASKS}

    def send(self, task: str, argument: str) -> Any:
        return self._tasks[task].send(argument)

    def wait(self, handle: Any) -> None:
        handle.get_result(block=True, timeout=_WAIT_MILLISECONDS)

    def read(self, handle: Any) -> None:
        handle.get_result()

    def close(self) -> None:
        self._broker.close()


def _client(_place: Place) -> Client:
    return _Client()


def _command(processes: int) -> Sequence[str | Path]:
    return [program("dramatiq"), _MODULE, "--processes", str(processes), "--threads", str(_THREADS)]


DRAMATIQ_REDIS = System(
    name="dramatiq-redis",
    title="Dramatiq, Redis",
    packages=("dramatiq", "pika", "redis"),
    module="dramatiq.brokers.rabbitmq",
    results="redis",
    notes={
        "queue": "classic (always)",
        "sends confirmed": "yes (`confirm_delivery`)",
        "ack": "late (always)",
        "event a task": "no",
        "at a time": "8 threads a process (default)",
        "settings": f"`dramatiq_queue_prefetch={_PREFETCH}`",
        "sends many by": "one by one: it has no other way",
        "waits by": "a blocking pop in Redis",
    },
    make_client=_client,
    command=_command,
    environment={"dramatiq_queue_prefetch": str(_PREFETCH)},
    slots=_THREADS,
)

DRAMATIQ_NONE = replace(
    DRAMATIQ_REDIS,
    name="dramatiq-none",
    title="Dramatiq, no results",
    packages=("dramatiq", "pika"),
    results="none",
    notes=DRAMATIQ_REDIS.notes | {"waits by": "cannot"},
)
