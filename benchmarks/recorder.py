"""CPU time that the recorder takes for a task, and the database, at a steady rate or for a backlog.

    .venv/bin/python -m benchmarks.recorder --tasks 20000 --rate 4000

Uses the broker of LIMETASK_BROKER_URL and the store of LIMETASK_STORE_URL. The rows stay there.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
import uuid
from collections import deque
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

import psutil
from sqlalchemy import create_engine, text

from limetask import Settings, Status, ids
from limetask.amqp import Connection
from limetask.message import Completion, Started
from limetask.records import encode_completion, encode_started
from limetask.store import Store
from limetask.store_url import parse_store_url
from limetask.topology import Names
from limetask_worker.child_process import start_process
from limetask_worker.control import ChildOptions, Ready
from tests.broker import delete_namespace

# Tasks that start together share a message. Their ends come while the next ones start.
_TOGETHER = 8
_RUNNING_GROUPS = 2


def main() -> None:
    """Print what a task costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--rate", type=float, default=0.0, help="tasks a second; 0: all wait when the recorder starts")
    arguments = parser.parse_args()
    settings = replace(Settings.from_environment(), namespace=f"bench-{uuid.uuid4().hex[:8]}")
    try:
        recorder, database = asyncio.run(measured(settings, arguments.tasks, arguments.rate))
    finally:
        delete_namespace(settings.broker_url, settings.namespace)
    each = 1_000_000 / arguments.tasks
    sys.stdout.write(f"recorder {recorder * each:.0f} us, database {database * each:.0f} us of CPU time a task\n")


async def measured(settings: Settings, tasks: int, rate: float) -> tuple[float, float]:
    """Return the seconds of CPU time that recorder and database took, the recorder's start not counted."""
    os.environ["LIMETASK_NAMESPACE"] = settings.namespace
    connection = Connection(settings, "benchmark")
    await connection.ready(10.0)
    feeder = Feeder(connection, Names(settings.namespace))
    if not rate:
        await feeder.feed(tasks, rate)
    process, control = await start_process("limetask_worker.recorder")
    control.send_options(ChildOptions(worker="benchmark", log_level="warning"))
    if not isinstance(await control.receive_report(), Ready):
        raise SystemExit("the recorder does not start")
    server = server_of(settings.resolved_store_url)
    before = cpu_seconds([process.pid]), cpu_seconds(server)
    if rate:
        await feeder.feed(tasks, rate)
    await feeder.recorded(settings.resolved_store_url)
    after = cpu_seconds([process.pid]), cpu_seconds(server)
    control.send_stop()
    await process.wait()
    await connection.close()
    return after[0] - before[0], after[1] - before[1]


class Feeder:
    """Publishes what a worker would tell of tasks that do nothing."""

    def __init__(self, connection: Connection, names: Names) -> None:
        self._connection = connection
        self._names = names
        self._running: deque[list[Started]] = deque()
        self._last: Started
        self._confirmed: asyncio.Future[None]

    async def feed(self, tasks: int, rate: float) -> None:
        """Publish the starts and ends of so many tasks, `rate` a second or as fast as it goes."""
        began = time.monotonic()
        for done in range(0, tasks, _TOGETHER):
            self._start(min(_TOGETHER, tasks - done))
            if len(self._running) > _RUNNING_GROUPS:
                self._end()
            await asyncio.sleep(max(0.0, began + done / rate - time.monotonic()) if rate else 0)
        while self._running:
            self._end()
        await self._confirmed

    async def recorded(self, store_url: str) -> None:
        """Return when the store has the last end."""
        with closing(Store(store_url)) as store:
            while (status := store.read(self._last.task_id, self._last.app)) is None or not status.is_completed():
                await asyncio.sleep(0.05)

    def _start(self, count: int) -> None:
        self._running.append([_started() for _ in range(count)])
        self._connection.publish("", self._names.results_queue, encode_started(self._running[-1]))

    def _end(self) -> None:
        for start in self._running.popleft():
            end = _end_of(start)
            self._last = start
            self._confirmed = self._connection.publish(
                self._names.completions_exchange, end.routing_key, encode_completion(end)
            )


def _started() -> Started:
    task_id, now = ids.new_task_id("shop"), datetime.now(UTC)
    return Started(task_id, "shop.tasks.nothing", "shop", 1, "host-1.example.com:1234:abcd", False, now, now)


def _end_of(start: Started) -> Completion:
    return Completion(
        id=str(uuid.uuid4()),
        task_id=start.task_id,
        task_name=start.task_name,
        app=start.app,
        status=Status.SUCCESS,
        result=None,
        error=None,
        attempt=1,
        worker=start.worker,
        sent_at=start.sent_at,
        started_at=start.started_at,
        finished_at=datetime.now(UTC),
    )


def server_of(store_url: str) -> list[int]:
    """Return the process of a PostgreSQL server on this machine, none for SQLite."""
    url = parse_store_url(store_url)
    if url.get_backend_name() == "sqlite":
        return []
    engine = create_engine(url)
    with engine.connect() as connection:
        pid_file = connection.execute(text("SELECT pg_read_file('postmaster.pid')")).scalar_one()
    engine.dispose()
    return [int(pid_file.split()[0])]


def cpu_seconds(pids: list[int]) -> float:
    """Return the CPU time of these processes and their children, those that have ended too."""
    total = 0.0
    for pid in pids:
        for process in (psutil.Process(pid), *psutil.Process(pid).children()):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


if __name__ == "__main__":
    main()
