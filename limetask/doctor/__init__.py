"""Looks whether everything that limetask needs is there, and says what to do where it is not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from limetask.amqp import Connection
from limetask.doctor.clocks import examine_clocks
from limetask.doctor.finding import Finding
from limetask.doctor.handlers import examine_handlers
from limetask.doctor.permissions import Permitted, examine_permissions, look_at_permissions
from limetask.doctor.policies import examine_policies
from limetask.doctor.recording import LONG_BACKLOG, examine_recorder
from limetask.errors import BrokerError, BrokerRefusedError, BrokerUnreachableError, ConfigurationError, StoreError
from limetask.settings import Settings
from limetask.store import Store
from limetask.store_tables import SCHEMA_VERSION
from limetask.topology import QOS_CATEGORIES, Names

__all__ = ["LONG_BACKLOG", "NEWEST_BROKER", "OLDEST_BROKER", "Finding", "examine"]

OLDEST_BROKER, NEWEST_BROKER = (3, 10), (4, 3)

_CONNECT_SECONDS = 10.0
_LOOKS_AT_ZEROS = 4
_LOOK_AGAIN_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class _Depths:
    """How many messages wait in each queue, and how many consume from it."""

    version: str
    counts: dict[str, tuple[int, int]]


def examine(settings: Settings) -> Iterator[Finding]:
    """Check broker, permissions, queues, workers, store, clocks, recorder and event handlers: a finding for each.

    Takes some seconds. Leaves one row in the store, of the application `limetask.doctor`, which expires like any other,
    and a message in a queue of its own.
    """
    names = Names(settings.namespace)
    try:
        depths = asyncio.run(_look_at_broker(settings, names))
    except (BrokerError, ConfigurationError) as exc:
        yield Finding("broker", str(exc), _broker_remedy(exc))
        yield from _examine_store(settings)
        return
    permitted, permission_finding = _examine_permissions(settings, names)
    yield from _examine_broker(depths, may_declare=permitted is None or permitted.declares)
    yield permission_finding
    yield from _examine_queues(names, depths)
    yield _tell_consumer_timeout(settings)
    yield examine_policies(settings, may_try=permitted is None or permitted.declares)
    store_findings = list(_examine_store(settings))
    yield from store_findings
    if all(finding.is_well for finding in store_findings):
        backlog, consumers = depths.counts[names.results_queue]
        may_try = permitted is None or permitted.to_default_exchange
        yield examine_recorder(settings, backlog, consumers, may_try=may_try)
        yield from examine_handlers(settings)


async def _look_at_broker(settings: Settings, names: Names) -> _Depths:
    connection = Connection(settings, "doctor")
    try:
        await connection.ready(_CONNECT_SECONDS)
        queues = [names.task_queue(qos) for qos in QOS_CATEGORIES] + [names.results_queue, names.dead_queue]
        return _Depths(connection.broker_version, await _counts(connection, queues))
    finally:
        await connection.close()


async def _counts(connection: Connection, queues: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Count, and again what shows zeros: the broker also counts nothing in a queue whose leader does not answer it."""
    counts: dict[str, tuple[int, int]] = {}
    for look in range(_LOOKS_AT_ZEROS):
        await asyncio.sleep(_LOOK_AGAIN_SECONDS if look else 0.0)
        unsure = [queue for queue in queues if not any(counts.get(queue, ()))]
        counts |= {queue: await connection.queue_counts(queue) for queue in unsure}
    return counts


def _broker_remedy(error: Exception) -> str:
    match error:
        case BrokerRefusedError():
            return "mend what it says"
        case BrokerUnreachableError():
            return "start it, or set LIMETASK_BROKER_URL right"
        case _:
            return "set LIMETASK_BROKER_URL right, or mend what it says"


def _examine_permissions(settings: Settings, names: Names) -> tuple[Permitted | None, Finding]:
    try:
        permitted = look_at_permissions(settings)
    except BrokerError as exc:
        return None, Finding("permissions", f"the broker could not be asked: {exc}", "mend what it says")
    return permitted, examine_permissions(permitted, names)


def _examine_broker(depths: _Depths, *, may_declare: bool) -> Iterator[Finding]:
    if may_declare:
        text = "all queues and bindings are as they should be"
    else:
        text = "all exchanges and queues are there; only a user who may declare them can check how they are bound"
    yield Finding("broker", f"RabbitMQ {depths.version} answers, and {text}")
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


def _tell_consumer_timeout(settings: Settings) -> Finding:
    """Say what limetask assumes, since the broker's own is not known here."""
    assumed = f"limetask takes it to be {settings.consumer_timeout:g} s (LIMETASK_CONSUMER_TIMEOUT)"
    return Finding(
        "consumer timeout",
        f"{assumed}; the broker's own cannot be asked for over AMQP",
        "on the broker's host, `rabbitmqctl environment | grep consumer_timeout` shows it in ms: it must not be less",
        is_checked=False,
    )


def _examine_store(settings: Settings) -> Iterator[Finding]:
    try:
        with closing(Store(settings.resolved_store_url)) as store:
            version = _examine_schema(store.schema_version())
            yield version
            if version.is_well:
                yield from examine_clocks(store)
    except (StoreError, ConfigurationError) as exc:
        yield Finding("store", str(exc), "set LIMETASK_STORE_URL right, or mend what it says")


def _examine_schema(version: str | None) -> Finding:
    if version == SCHEMA_VERSION:
        return Finding("store", f"it answers, with schema {version}")
    if version is None:
        return Finding("store", "nothing was ever recorded there", "start a worker with the recorder on this store")
    remedy = "run the same version of limetask everywhere, and restart the recorder, which upgrades the store"
    return Finding("store", f"its schema is {version}, and this limetask knows {SCHEMA_VERSION}", remedy)
