"""Fills limetask's store with tasks that ended long ago, and measures what that does to it."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime, timedelta
from statistics import median
from types import TracebackType

import sqlalchemy

from benchmarks.place import Place
from benchmarks.statistics import percentile
from benchmarks.systems.limetask import APP
from limetask import Settings, configure, get_status, ids
from limetask.client import close_default_client
from limetask.store_tables import task_status
from limetask_worker.store_writer import StoreWriter

_CHUNK = 250_000
_OLDEST = timedelta(days=29)
_NEWEST = timedelta(days=1)
_READABLE = 5_000
_READS = 2_000
_PRUNINGS = 10
_PRUNED_AT_ONCE = 1_000
_MILLISECONDS = 1_000

# In the order of their ids, as they come in life. Ids made here do not belong to any application, so none of them can
# be read; `_readable_rows` are for that.
_FILL = sqlalchemy.text("""
    INSERT INTO limetask_task_status
        (task_id, app, task_name, attempt, rank, status, result, worker, acks_late, begun,
         sent_at, started_at, finished_at)
    SELECT
        (lpad(to_hex(milliseconds), 12, '0') || '8' || substr(hash, 1, 3) || '8' || substr(hash, 4, 15))::uuid,
        'acme-' || number % 100, 'my_package.tasks.task_' || number % 200, 1, 3, 'SUCCESS', 'null',
        'host:1234.1', false, 1, moment, moment, moment + interval '5 ms'
    FROM (
        SELECT number, moment, md5(number::text) AS hash, (extract(epoch FROM moment) * 1000)::bigint AS milliseconds
        FROM (
            SELECT number, :oldest + (:newest - :oldest) * number / :count AS moment
            FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS number
        ) AS moments
    ) AS rows
""").bindparams(
    sqlalchemy.bindparam("oldest", type_=sqlalchemy.DateTime(timezone=True)),
    sqlalchemy.bindparam("newest", type_=sqlalchemy.DateTime(timezone=True)),
    sqlalchemy.bindparam("count", type_=sqlalchemy.Double),
)


class Rows:
    """The rows of a store in PostgreSQL whose schema is there; a context that closes its connections."""

    def __init__(self, store_url: str) -> None:
        self._engine = sqlalchemy.create_engine(store_url)
        self._writer = StoreWriter(store_url)

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        self._writer.close()
        self._engine.dispose()

    def fill(self, count: int) -> list[str]:
        """Add as many rows, and some whose ids are returned: those can be read."""
        now = datetime.now(UTC)
        bounds = {"oldest": now - _OLDEST, "newest": now - _NEWEST, "count": count}
        for first in range(0, count, _CHUNK):
            with self._engine.begin() as connection:
                connection.execute(_FILL, bounds | {"first": first, "last": min(first + _CHUNK, count) - 1})
        readable = self._add_readable(now)
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sqlalchemy.text("VACUUM ANALYZE limetask_task_status"))
        return readable

    def prune_milliseconds(self, count: int) -> float:
        """Return how long the pruning of a thousand out of `count` rows takes: the median of some."""
        at_once = min(_PRUNED_AT_ONCE, count // (2 * _PRUNINGS))
        before = datetime.now(UTC) - _NEWEST
        return median(self._prune(before, at_once) for _ in range(_PRUNINGS)) * _PRUNED_AT_ONCE / at_once

    def _prune(self, before: datetime, at_once: int) -> float:
        begun = time.perf_counter()
        pruned = self._writer.prune(before, at_once)
        assert pruned == at_once, f"only {pruned} rows were there to be pruned"
        return _MILLISECONDS * (time.perf_counter() - begun)

    def _add_readable(self, now: datetime) -> list[str]:
        # None among the oldest: they are to be pruned.
        newest, oldest = _NEWEST.total_seconds(), 0.5 * _OLDEST.total_seconds()
        sent = [now - timedelta(seconds=random.uniform(newest, oldest)) for _ in range(_READABLE)]
        readable = [ids.new_task_id(APP, moment.timestamp()) for moment in sent]
        rows = [_ended(task_id, moment) for task_id, moment in zip(readable, sent, strict=True)]
        with self._engine.begin() as connection:
            connection.execute(sqlalchemy.insert(task_status), rows)
        return readable


def _ended(task_id: str, moment: datetime) -> dict[str, object]:
    return {
        "task_id": task_id,
        "app": APP,
        "task_name": "my_package.tasks.task_1",
        "attempt": 1,
        "rank": 3,
        "status": "SUCCESS",
        "result": "null",
        "worker": "host:1234.1",
        "acks_late": False,
        "begun": 1,
        "sent_at": moment,
        "started_at": moment,
        "finished_at": moment,
    }


def read_p99_milliseconds(place: Place, task_ids: list[str]) -> float:
    """Return the p99 of `get_status`, each for another task."""
    configure(Settings(broker_url=place.broker_url, store_url=place.store_url, namespace=place.namespace))
    try:
        return _MILLISECONDS * percentile([_read(one) for one in random.sample(task_ids, _READS)], 0.99)
    finally:
        close_default_client()


def _read(task_id: str) -> float:
    begun = time.perf_counter()
    assert get_status(task_id, APP).is_completed()
    return time.perf_counter() - begun
