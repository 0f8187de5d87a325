"""Whether the recorder is alive, how far it is behind, and whether it writes into the store that is read here."""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import closing
from datetime import UTC, datetime

from limetask import ids
from limetask.amqp import Connection
from limetask.doctor.finding import Finding
from limetask.errors import BrokerError, BrokerUnreachableError, StoreError
from limetask.message import Completion
from limetask.records import encode_completion
from limetask.settings import Settings
from limetask.status import Status
from limetask.store import Store
from limetask.topology import Names

LONG_BACKLOG = 10_000
"""So many records behind, a recorder is too slow, or stands still."""

_CONNECT_SECONDS = 10.0
_ROUND_TRIP_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 0.02
_OWN_APP = "limetask.doctor"


def examine_recorder(settings: Settings, backlog: int, consumers: int, *, may_try: bool) -> Finding:
    """Have the recorder write a row of the application `limetask.doctor`, and look for it in the store here.

    `backlog` records wait, and `consumers` take them. Without `may_try` the broker would refuse the attempt.
    """
    if not consumers:
        return Finding(
            "recorder", f"there is none, and {backlog:,} records wait", "start limetask-worker --roles recorder"
        )
    if not may_try:
        return _untried(backlog)
    try:
        seconds = asyncio.run(_time_a_record(settings))
    except (BrokerError, StoreError) as exc:
        return Finding("recorder", f"it could not be tried: {exc}", "mend what it says")
    if seconds is None:
        return _elsewhere(settings, backlog)
    text = f"it records within {seconds * 1000:.0f} ms into this store, {backlog:,} records wait"
    return Finding("recorder", text, _backlog_remedy(backlog))


def _elsewhere(settings: Settings, backlog: int) -> Finding:
    with closing(Store(settings.resolved_store_url)) as store:
        doubt = store.doubt() or "a recorder has said that it writes there within the last minutes"
        text = (
            f"one is connected, but wrote nothing into this store for {_ROUND_TRIP_SECONDS:g} s ({backlog:,} wait). "
            f"This store is {store.shown}, and {doubt}"
        )
    return Finding(
        "recorder",
        text,
        "give the recorder and this machine the same LIMETASK_STORE_URL, and look into the recorder's log",
    )


def _untried(backlog: int) -> Finding:
    text = f"one is connected, {backlog:,} records wait"
    if remedy := _backlog_remedy(backlog):
        return Finding("recorder", text, remedy)
    return Finding(
        "recorder",
        f"{text}. Whether it writes into this store was not tried: this user may not write to amq.default",
        "run `limetask doctor` here once with the worker's user in LIMETASK_BROKER_URL, or see that "
        "LIMETASK_STORE_URL is the recorder's",
        is_checked=False,
    )


def _backlog_remedy(backlog: int) -> str:
    return "add no load, or give the store more room" if backlog > LONG_BACKLOG else ""


async def _time_a_record(settings: Settings) -> float | None:
    """Have the recorder write a row, and return after how many seconds the store here has it; None if it never has."""
    probe = _probe()
    connection = Connection(settings, "doctor")
    store = Store(settings.resolved_store_url)
    try:
        await connection.ready(_CONNECT_SECONDS)
        started = time.monotonic()
        await _publish(connection, Names(settings.namespace), probe)
        while time.monotonic() < started + _ROUND_TRIP_SECONDS:
            if await asyncio.to_thread(store.read, probe.task_id, probe.app) is not None:
                return time.monotonic() - started
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        return None
    finally:
        await connection.close()
        store.close()


async def _publish(connection: Connection, names: Names, probe: Completion) -> None:
    try:
        async with asyncio.timeout(_ROUND_TRIP_SECONDS):
            await connection.publish("", names.results_queue, encode_completion(probe))
    except TimeoutError:
        raise BrokerUnreachableError(
            f"the broker took no message within {_ROUND_TRIP_SECONDS:g} s. `rabbitmqctl status` shows whether it is "
            "out of memory or disk space"
        ) from None


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
