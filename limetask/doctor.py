"""Looks whether everything that limetask needs is there, and says what to do where it is not."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from limetask import ids
from limetask.amqp import Connection
from limetask.errors import BrokerError, ConfigurationError, StoreError
from limetask.message import Completion
from limetask.records import encode_completion
from limetask.settings import Settings
from limetask.status import Status
from limetask.store import SCHEMA_VERSION, Store
from limetask.topology import QOS_CATEGORIES, Names

OLDEST_BROKER, NEWEST_BROKER = (3, 10), (4, 3)
LONG_BACKLOG = 10_000
"""So many records behind, a recorder is too slow, or stands still."""

_CONNECT_SECONDS = 10.0
_ROUND_TRIP_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 0.02
_OWN_APP = "limetask.doctor"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check has found. `remedy` says what to do, and is empty if all is well."""

    check: str
    text: str
    remedy: str = ""

    @property
    def is_well(self) -> bool:
        """True if there is nothing to do."""
        return not self.remedy


@dataclass(frozen=True, slots=True)
class _Depths:
    """How many messages wait in each queue, and how many consume from it."""

    version: str
    counts: dict[str, tuple[int, int]]


def examine(settings: Settings) -> Iterator[Finding]:
    """Check broker, queues, workers, recorder and store, and give a finding for each.

    Takes some seconds. Leaves one row in the store, of the application `limetask.doctor`, which expires like any other.
    """
    names = Names(settings.namespace)
    try:
        depths = asyncio.run(_look_at_broker(settings, names))
    except (BrokerError, ConfigurationError) as exc:
        yield Finding("broker", str(exc), "set LIMETASK_BROKER_URL right, or mend what it says")
        yield from _examine_store(settings)
        return
    yield from _examine_broker(depths)
    yield from _examine_queues(names, depths)
    store_findings = list(_examine_store(settings))
    yield from store_findings
    if all(finding.is_well for finding in store_findings):
        yield _examine_recorder(settings, names, depths)


async def _look_at_broker(settings: Settings, names: Names) -> _Depths:
    connection = Connection(settings, "doctor")
    try:
        await connection.ready(_CONNECT_SECONDS)
        queues = [names.task_queue(qos) for qos in QOS_CATEGORIES] + [names.results_queue, names.dead_queue]
        return _Depths(connection.broker_version, {queue: await connection.queue_counts(queue) for queue in queues})
    finally:
        await connection.close()


def _examine_broker(depths: _Depths) -> Iterator[Finding]:
    yield Finding("broker", f"RabbitMQ {depths.version} answers, and all queues and bindings are as they should be")
    parts = depths.version.split(".")
    known = tuple(int(part) for part in parts[:2] if part.isdigit())
    if not OLDEST_BROKER <= known <= NEWEST_BROKER:
        yield Finding("broker version", f"{depths.version} is not one that limetask is tested with", "use 3.10 to 4.3")


def _examine_queues(names: Names, depths: _Depths) -> Iterator[Finding]:
    for qos in QOS_CATEGORIES:
        messages, consumers = depths.counts[names.task_queue(qos)]
        text = f"{messages:,} tasks wait and {consumers} processes take them"
        # A worker whose slots are all busy for long takes one message at a time, without a consumer.
        remedy = "" if consumers or not messages else f"start a worker: limetask-worker my_package --queues {qos}"
        yield Finding(f"queue {qos}", text, remedy)
    letters, _ = depths.counts[names.dead_queue]
    remedy = "see what they are: limetask dead list" if letters else ""
    yield Finding("dead letters", f"{letters:,} messages could not be run or recorded", remedy)


def _examine_store(settings: Settings) -> Iterator[Finding]:
    try:
        store = Store(settings.resolved_store_url)
        try:
            version = store.schema_version()
        finally:
            store.close()
    except (StoreError, ConfigurationError) as exc:
        yield Finding("store", str(exc), "set LIMETASK_STORE_URL right, or mend what it says")
        return
    if version == SCHEMA_VERSION:
        yield Finding("store", f"it answers, with schema {version}")
    elif version is None:
        yield Finding("store", "nothing was ever recorded there", "start a worker with the recorder on this store")
    else:
        remedy = "run the same version of limetask everywhere, and restart the recorder, which upgrades the store"
        yield Finding("store", f"its schema is {version}, and this limetask knows {SCHEMA_VERSION}", remedy)


def _examine_recorder(settings: Settings, names: Names, depths: _Depths) -> Finding:
    backlog, consumers = depths.counts[names.results_queue]
    if not consumers:
        return Finding(
            "recorder", f"there is none, and {backlog:,} records wait", "start limetask-worker --roles recorder"
        )
    try:
        seconds = asyncio.run(_time_a_record(settings, names))
    except (BrokerError, StoreError) as exc:
        return Finding("recorder", f"it could not be tried: {exc}", "mend what it says")
    if seconds is None:
        return Finding(
            "recorder",
            f"one is connected, but wrote nothing into this store for {_ROUND_TRIP_SECONDS:g} s ({backlog:,} wait)",
            "give the recorder and this machine the same LIMETASK_STORE_URL, and look into the recorder's log",
        )
    text = f"it records within {seconds * 1000:.0f} ms into this store, {backlog:,} records wait"
    return Finding("recorder", text, "add no load, or give the store more room" if backlog > LONG_BACKLOG else "")


async def _time_a_record(settings: Settings, names: Names) -> float | None:
    """Have the recorder write a row, and return after how many seconds the store here has it; None if it never has."""
    probe = _probe()
    connection = Connection(settings, "doctor")
    store = Store(settings.resolved_store_url)
    try:
        await connection.ready(_CONNECT_SECONDS)
        started = time.monotonic()
        await connection.publish("", names.results_queue, encode_completion(probe))
        while time.monotonic() < started + _ROUND_TRIP_SECONDS:
            if await asyncio.to_thread(store.read, probe.task_id, probe.app) is not None:
                return time.monotonic() - started
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        return None
    finally:
        await connection.close()
        store.close()


def _probe() -> Completion:
    task_id = ids.new_task_id(_OWN_APP)
    return Completion(
        id=str(uuid.uuid4()),
        task_id=task_id,
        task_name="limetask.doctor.probe",
        app=_OWN_APP,
        status=Status.SUCCESS,
        result=None,
        error=None,
        attempt=1,
        worker=None,
        sent_at=ids.sent_at(task_id),
        started_at=None,
        finished_at=datetime.now(UTC),
    )
