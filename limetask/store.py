"""The status store's reading side.

Importing SQLAlchemy takes a while, so the client imports this module at its first read of a status.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import Row, Select, Text, bindparam, column, func, select, table
from sqlalchemy.exc import DataError, DBAPIError

from limetask import ids
from limetask.database import open_engine, store_errors
from limetask.status import ErrorInfo, Status, TaskStatus
from limetask.store_tables import VERSION_TABLE, UtcDateTime, event_handler, store_mark, task_status
from limetask.store_url import parse_store_url, shown_url, sqlite_path

READ_SECONDS = 5
"""Time for PostgreSQL to answer a read, or for SQLite to get a lock."""

_READ_CONNECTIONS = 5

_MINUTE = timedelta(minutes=1)
# A recorder says twice a minute that it is there, by its own clock.
_SILENT_RECORDER = timedelta(minutes=5)

_UNDEFINED_TABLE = "42P01"


_columns = task_status.c
_BY_ID_AND_APP = select(
    _columns.task_id,
    _columns.app,
    _columns.task_name,
    _columns.attempt,
    _columns.status,
    _columns.result,
    _columns.error,
    _columns.worker,
    _columns.sent_at,
    _columns.started_at,
    _columns.finished_at,
).where(_columns.task_id == bindparam("task_id"), _columns.app == bindparam("app"))

_NEWEST_TIMES = (
    select(_columns.worker, _columns.sent_at, _columns.started_at)
    .where(_columns.task_id >= bindparam("oldest_id"))
    .order_by(_columns.task_id.desc())
    .limit(bindparam("limit"))
)
_CLOCK = select(func.clock_timestamp(type_=UtcDateTime))

_HANDLERS = select(event_handler.c.name, event_handler.c.bindings, event_handler.c.heard_at).order_by(
    event_handler.c.name
)

_MARK = select(store_mark.c.id, store_mark.c.recorder, store_mark.c.recorder_seen_at)

_VERSION = select(column("version_num", Text)).select_from(table(VERSION_TABLE))


@dataclass(frozen=True, slots=True)
class TaskTimes:
    """When a task was sent, by its producer's clock, and when it last started, by its worker's."""

    worker: str | None
    sent_at: datetime
    started_at: datetime | None


@dataclass(frozen=True, slots=True)
class RecordedHandler:
    """A shared event handler: what its queue is bound to, and when a worker last declared it, as the recorder heard."""

    name: str
    bindings: tuple[str, ...]
    heard_at: datetime


@dataclass(frozen=True, slots=True)
class StoreMark:
    """Which store it is, and which recorder said last that it writes there, and when, by its clock: if one ever did."""

    id: str
    recorder: str | None
    recorder_seen_at: datetime | None


class Store:
    """Reads statuses. Safe in any thread; after a fork the child must make a Store of its own.

    It opens no connection before the first read, and never creates anything.
    """

    def __init__(self, url: str) -> None:
        """Raises StoreUrlError if `url` is not that of an SQLite file or a PostgreSQL database."""
        self._url = parse_store_url(url)
        self._engine = open_engine(
            self._url, answer_seconds=READ_SECONDS, connections=_READ_CONNECTIONS, autocommit=True
        )

    @property
    def shown(self) -> str:
        """The URL without what may be secret."""
        return shown_url(self._url)

    def read(self, task_id: str, app: str) -> TaskStatus | None:
        """Return the status of the task with this id and this application, None if the store has none.

        A store that nothing was ever written to has none. Raises StoreError if the database cannot be read: it has
        CONNECT_SECONDS to connect and READ_SECONDS to answer, and a thread waits as long for a free connection.
        """
        with store_errors(self._url):
            row = self._row(task_id, app)
        return None if row is None else _status_of(row)

    def schema_version(self) -> str | None:
        """Return the version of the store's schema, None if nothing was ever recorded; raises StoreError."""
        with store_errors(self._url):
            if self._url.get_backend_name() == "sqlite" and not sqlite_path(self._url).exists():
                return None
            try:
                with self._engine.connect() as connection:
                    return connection.execute(_VERSION).scalar()
            except DBAPIError as exc:
                if _is_missing_table(exc):
                    return None
                raise

    def newest_times(self, limit: int, since: datetime) -> list[TaskTimes]:
        """Return the times of the tasks that were sent last, `limit` at most, none sent before `since`.

        They are found by the primary key. The store must have its schema. Raises StoreError.
        """
        bounds = {"oldest_id": ids.oldest_id(since), "limit": limit}
        with store_errors(self._url), self._engine.connect() as connection:
            return [TaskTimes(*row) for row in connection.execute(_NEWEST_TIMES, bounds)]

    def handlers(self) -> list[RecordedHandler]:
        """Return all shared event handlers that a worker has declared and nobody has pruned, by name.

        A store that nothing was ever written to has none. Raises StoreError.
        """
        with store_errors(self._url):
            return [
                RecordedHandler(name, tuple(orjson.loads(bindings)), heard_at)
                for name, bindings, heard_at in self._rows(_HANDLERS)
            ]

    def mark(self) -> StoreMark | None:
        """Return the mark of the store, None if nothing was ever written, or by older recorders only.

        Raises StoreError.
        """
        with store_errors(self._url):
            return next((StoreMark(*row) for row in self._rows(_MARK)), None)

    def doubt(self) -> str | None:
        """Return why what is not recorded here may be recorded elsewhere, None if nothing speaks for it.

        Raises StoreError.
        """
        mark = self.mark()
        if mark is None:
            return "nothing was ever recorded there" if self.schema_version() is None else None
        if mark.recorder_seen_at is None:
            return "no recorder has said that it writes there"
        silent = datetime.now(UTC) - mark.recorder_seen_at
        if silent < _SILENT_RECORDER:
            return None
        return f"the last recorder to write there, {mark.recorder}, has not done so for {silent // _MINUTE} minutes"

    def clock(self) -> datetime | None:
        """Return what time it is for the database, None for SQLite, which has no clock; raises StoreError."""
        if self._url.get_backend_name() == "sqlite":
            return None
        with store_errors(self._url), self._engine.connect() as connection:
            return connection.execute(_CLOCK).scalar()

    def close(self) -> None:
        """Close all connections. A later read opens new ones."""
        self._engine.dispose()

    def _rows(self, query: Select[*tuple[Any, ...]]) -> Sequence[Row[*tuple[Any, ...]]]:
        if self._url.get_backend_name() == "sqlite" and not sqlite_path(self._url).exists():
            return ()
        try:
            with self._engine.connect() as connection:
                return connection.execute(query).all()
        except DBAPIError as exc:
            if _is_missing_table(exc):
                return ()
            raise

    def _row(self, task_id: str, app: str) -> Row[*tuple[Any, ...]] | None:
        if self._url.get_backend_name() == "sqlite" and not sqlite_path(self._url).exists():
            return None
        try:
            with self._engine.connect() as connection:
                return connection.execute(_BY_ID_AND_APP, {"task_id": task_id, "app": app}).first()
        except (DataError, UnicodeEncodeError):
            return None  # what the database refuses as an id or as text is not in it
        except DBAPIError as exc:
            if _is_missing_table(exc):
                return None
            raise


def _is_missing_table(error: DBAPIError) -> bool:
    return getattr(error.orig, "sqlstate", None) == _UNDEFINED_TABLE or "no such table" in str(error.orig)


def _status_of(row: Row[*tuple[Any, ...]]) -> TaskStatus:
    return TaskStatus(
        id=row.task_id,
        status=Status(row.status),
        result=None if row.result is None else orjson.loads(row.result),
        error=None if row.error is None else _error_of(orjson.loads(row.error)),
        task_name=row.task_name,
        app=row.app,
        attempt=row.attempt,
        worker=row.worker,
        sent_at=row.sent_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def _error_of(fields: dict[str, str]) -> ErrorInfo:
    return ErrorInfo(type=fields["type"], message=fields["message"], traceback=fields["traceback"])
