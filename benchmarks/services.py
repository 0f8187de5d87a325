"""RabbitMQ, PostgreSQL and Redis: started by the scripts if they do not run yet, and what one run has in them."""

from __future__ import annotations

import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pika
import psycopg
import sqlalchemy
from pika.adapters.blocking_connection import BlockingChannel

from benchmarks import ROOT, BenchmarkError
from benchmarks.drained import count_drained
from benchmarks.place import Place
from benchmarks.processes import server_pid
from benchmarks.systems.system import System
from limetask import Status, ids
from limetask.store_tables import task_status
from limetask.topology import Names, topology

_URL_VARIABLES = {
    "rabbitmq": "LIMETASK_BROKER_URL",
    "postgresql": "LIMETASK_TEST_POSTGRES_URL",
    "redis": "LIMETASK_BENCH_REDIS_URL",
}


@dataclass(frozen=True)
class Services:
    """The URLs of what runs; empty where nobody needs it."""

    broker_url: str
    postgresql_url: str
    redis_url: str

    def server_pids(self) -> dict[str, int]:
        """Return the main processes of those that run on this machine in our sight."""
        urls = {"broker": self.broker_url, "postgresql": self.postgresql_url, "redis": self.redis_url}
        found = {name: server_pid(url) for name, url in urls.items() if url}
        return {name: pid for name, pid in found.items() if pid is not None}

    def versions(self) -> dict[str, str]:
        """Return the versions of the servers."""
        versions = {"RabbitMQ": _rabbitmq_version(self.broker_url)}
        if self.postgresql_url:
            versions["PostgreSQL"] = _postgresql_version(self.postgresql_url)
        if self.redis_url:
            versions["Redis"] = _redis_version(self.redis_url)
        return versions


@contextmanager
def running_services(systems: list[System]) -> Iterator[Services]:
    """Have the services that these systems need, and stop afterwards what was not running before."""
    needed = {"rabbitmq"} | {system.results for system in systems}
    with ExitStack() as stack:
        urls = {name: _start(stack, name) if name in needed else "" for name in _URL_VARIABLES}
        yield Services(urls["rabbitmq"], urls["postgresql"], urls["redis"])


def _start(stack: ExitStack, name: str) -> str:
    script = ROOT / "scripts" / name
    is_given = bool(os.environ.get(_URL_VARIABLES[name]))
    was_up = subprocess.run([script, "url"], capture_output=True, check=False).returncode == 0
    if not is_given and not was_up:
        # Before the start: it may be interrupted.
        stack.callback(_stop, script)
    started = subprocess.run([script, "up"], stdout=subprocess.PIPE, text=True, check=False, start_new_session=True)
    if started.returncode != 0:
        raise BenchmarkError(f"scripts/{name} up could not provide what the benchmarks need")
    return started.stdout.strip()


def _stop(script: Path) -> None:
    subprocess.run([script, "down"], capture_output=True, check=False)


@contextmanager
def fresh_place(services: Services, system: System) -> Iterator[Place]:
    """Give a system names, a folder and a database with empty tables, and remove all of it afterwards."""
    with ExitStack() as stack:
        place = Place(
            broker_url=services.broker_url,
            postgresql_url="",
            redis_url=services.redis_url,
            namespace=f"bench-{secrets.token_hex(4)}",
            folder=stack.enter_context(tempfile.TemporaryDirectory(prefix="limetask-bench-")),
            results=system.results,
            made_at=time.time(),
        )
        if system.results == "postgresql":
            place = replace(place, postgresql_url=stack.enter_context(_postgresql_database(services.postgresql_url)))
        if system.results == "redis":
            stack.enter_context(_empty_redis(services.redis_url))
        stack.callback(_delete_from_broker, place)
        if system.make_tables is not None:
            system.make_tables(place)
        yield place


def queue_depth(place: Place, queue: str) -> int:
    """Return how many messages wait in a queue."""
    with _channel(place.broker_url) as channel:
        depth: int = channel.queue_declare(queue, passive=True).method.message_count
        return depth


# --- how many ends are kept ---


@contextmanager
def ends_counter(system: System, place: Place) -> Iterator[Callable[[], int]]:
    """Give what counts the ends that can be read, cheaply: it must not disturb what it watches."""
    if system.results == "redis":
        with _redis_client(place.redis_url) as client:
            yield client.dbsize
        return
    if system.results == "drained":
        yield partial(count_drained, place)
        return
    query = _CELERY_ENDS if system.name.startswith("celery") else _limetask_ends(place)
    engine = sqlalchemy.create_engine(place.store_url, isolation_level="AUTOCOMMIT")
    try:
        yield lambda: _count(engine, query)
    finally:
        engine.dispose()


_CELERY_ENDS = sqlalchemy.text("SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS'")


def _limetask_ends(place: Place) -> sqlalchemy.Executable:
    """Count what was sent since the place was made, which the primary key finds among millions of older rows."""
    since = datetime.fromtimestamp(place.made_at, UTC)
    ours = (task_status.c.task_id >= ids.oldest_id(since), task_status.c.status == Status.SUCCESS)
    return sqlalchemy.select(sqlalchemy.func.count()).select_from(task_status).where(*ours)


def _count(engine: sqlalchemy.Engine, query: sqlalchemy.Executable) -> int:
    try:
        with engine.connect() as connection:
            return int(connection.execute(query).scalar_one())
    except (sqlalchemy.exc.ProgrammingError, sqlalchemy.exc.OperationalError):
        return 0  # there is no table yet


# --- RabbitMQ ---


@contextmanager
def _channel(broker_url: str) -> Iterator[BlockingChannel]:
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    try:
        yield connection.channel()
    finally:
        connection.close()


def _delete_from_broker(place: Place) -> None:
    everything = topology(Names(place.namespace))
    name = place.namespace
    # The second and third words are those of Dramatiq and TaskIQ; Celery has just the namespace.
    peers = [name, f"{name}.DQ", f"{name}.XQ", f"{name}.dead"]
    with _channel(place.broker_url) as channel:
        for queue in {*(queue.name for queue in everything.queues), *peers}:
            channel.queue_delete(queue)
        for exchange in {*(exchange.name for exchange in everything.exchanges), name, f"{name}.events"}:
            channel.exchange_delete(exchange)


def _rabbitmq_version(broker_url: str) -> str:
    with _channel(broker_url) as channel:
        properties = channel.connection._impl.server_properties
        return str(properties["version"])


# --- PostgreSQL ---


@contextmanager
def _postgresql_database(admin_url: str) -> Iterator[str]:
    name = f"limetask_bench_{secrets.token_hex(6)}"
    url = sqlalchemy.make_url(admin_url).set(drivername="postgresql+psycopg")
    _execute(admin_url, f'CREATE DATABASE "{name}"')
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        _execute(admin_url, f'DROP DATABASE "{name}" WITH (FORCE)')


def _execute(admin_url: str, statement: str) -> None:
    with psycopg.connect(_plain(admin_url), autocommit=True) as connection:
        connection.execute(statement.encode())


def _postgresql_version(admin_url: str) -> str:
    with psycopg.connect(_plain(admin_url)) as connection:
        return str(connection.info.parameter_status("server_version"))


def _plain(admin_url: str) -> str:
    return sqlalchemy.make_url(admin_url).set(drivername="postgresql").render_as_string(hide_password=False)


# --- Redis ---


@contextmanager
def _redis_client(url: str) -> Iterator[Any]:
    import redis

    client = redis.Redis.from_url(url)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def _empty_redis(url: str) -> Iterator[None]:
    with _redis_client(url) as client:
        if client.dbsize():
            raise BenchmarkError(f"the database {url} is not empty: name one that the benchmarks may delete")
        try:
            yield
        finally:
            client.flushdb()


def _redis_version(url: str) -> str:
    with _redis_client(url) as client:
        return str(client.info("server")["redis_version"])
