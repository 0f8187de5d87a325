"""Celery 5 with its prefork pool, its results in Redis or PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.place import Place
from benchmarks.systems.system import TASKS, BlockingClient, Client, System, program

_MODULE = "benchmarks.apps.celery_app"
_WAIT_SECONDS = 60
_POLL_SECONDS = 0.005


class _Client(BlockingClient):
    def __init__(self) -> None:
        from benchmarks.apps import celery_app

        self._app = celery_app.app
        self._tasks = {name: getattr(celery_app, name) for name in TASKS}

    def send(self, task: str, argument: str) -> Any:
        return self._tasks[task].delay(argument)

    def send_many(self, task: str, arguments: Sequence[str]) -> list[Any]:
        signature = self._tasks[task]
        with self._app.producer_pool.acquire(block=True) as producer:
            return [signature.apply_async((argument,), producer=producer) for argument in arguments]

    def wait(self, handle: Any) -> None:
        handle.get(timeout=_WAIT_SECONDS, interval=_POLL_SECONDS)

    def read(self, handle: Any) -> None:
        # A new result object: the one of the sender would remember what it has read.
        assert self._app.AsyncResult(handle.id).state == "SUCCESS"

    def close(self) -> None:
        self._app.close()


def _client(_place: Place) -> Client:
    return _Client()


def _make_tables(place: Place) -> None:
    import sqlalchemy
    from celery.backends.database.session import SessionManager

    engine = sqlalchemy.create_engine(place.store_url)
    SessionManager().prepare_models(engine)
    engine.dispose()


def _command(processes: int) -> Sequence[str | Path]:
    quiet = ["--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    pool = ["--pool", "prefork", "--concurrency", str(processes)]
    return [program("celery"), "-A", _MODULE, "worker", *pool, *quiet]


def _command_with_events(processes: int) -> Sequence[str | Path]:
    return [*_command(processes), "--task-events"]


CELERY_REDIS = System(
    name="celery-redis",
    title="Celery, Redis",
    packages=("celery", "kombu", "redis"),
    module="celery.app",
    results="redis",
    notes={
        "queue": "classic (default)",
        "sends confirmed": "yes (`confirm_publish`)",
        "ack": "early (default)",
        "event a task": "no",
        "at a time": "1 a process: prefork has no threads",
        "settings": "`worker_prefetch_multiplier=128`; no gossip, mingle, heartbeat, remote control, rate limits",
        "sends many by": "one producer for all",
        "waits by": "Redis publish and subscribe",
    },
    make_client=_client,
    command=_command,
    slots=1,
)

CELERY_POSTGRESQL = replace(
    CELERY_REDIS,
    name="celery-postgresql",
    title="Celery, PostgreSQL",
    packages=("celery", "kombu", "SQLAlchemy", "psycopg"),
    results="postgresql",
    notes=CELERY_REDIS.notes
    | {"event a task": "yes (`--task-events`), not confirmed", "waits by": f"asking every {_POLL_SECONDS * 1000:g} ms"},
    command=_command_with_events,
    make_tables=_make_tables,
)
