"""The status store's writing side: only the recorder uses it.

A task's row only moves forward, in (attempt, rank). So records may arrive twice or in any order, in batches cut
anywhere, and the row is the same in the end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from operator import attrgetter, itemgetter
from typing import Any, TypeAlias

import orjson
from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Row,
    RowMapping,
    and_,
    bindparam,
    case,
    delete,
    false,
    func,
    null,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, IntegrityError, StatementError

from limetask import ids
from limetask.database import open_engine, parse_store_url, store_errors
from limetask.errors import StoreError
from limetask.message import Claim, Completion, Decision, HandlerBindings, HandlerGone, Released, Started, Verdict
from limetask.status import Rank, Status
from limetask.store import event_handler, is_started, task_status

WRITE_SECONDS = 30
"""Time for PostgreSQL to run one statement, or for SQLite to get its lock."""

_columns = task_status.c
_Values = dict[str, Any]
Insert: TypeAlias = postgresql.Insert | sqlite.Insert


class RecordRejectedError(StoreError):
    """The database can be reached, and refuses the data itself: the same records would be refused again."""


class StoreWriter:
    """Writes statuses and prunes them. For one thread, in the process that made it.

    The schema must be there: see `limetask_worker.schema.upgrade`. Every method raises StoreError when the store
    cannot be used now, having changed nothing; the next call connects anew.
    """

    def __init__(self, url: str) -> None:
        """Raises StoreUrlError if `url` is not that of an SQLite file or a PostgreSQL database."""
        self._url = parse_store_url(url)
        # FULL, since a record is acked to the broker once it is committed: a power cut must not undo the commit.
        self._engine = open_engine(self._url, answer_seconds=WRITE_SECONDS, sqlite_pragmas=("synchronous = FULL",))
        self._upsert = _upsert(self._url.get_backend_name(), _moves_forward)
        self._overwrite = _upsert(self._url.get_backend_name(), None)
        self._note_handler = _upsert_handler(self._url.get_backend_name())

    def merge(self, records: Sequence[Started | Completion]) -> None:
        """Bring the rows of these tasks forward, in one transaction: all of them or none.

        Raises RecordRejectedError if the database refuses one of the records, whichever it is.
        """
        rows = _newest_rows(records)
        if not rows:
            return
        with _write_errors(self._url), self._engine.begin() as connection:
            connection.execute(self._upsert, rows)

    def claim(self, claim: Claim, max_begun: int, *, take_over: bool) -> Verdict:
        """Decide whether a task may run, and record its start if it may. In one transaction.

        To decide the same claim twice, as after a redelivery, gives the same answer. A task may begin `max_begun`
        times. `take_over` is whether a late task may be taken from the worker that has started it. Raises
        RecordRejectedError if the database refuses the record.
        """
        start = claim.start
        with _write_errors(self._url), self._engine.begin() as connection:
            stored = connection.execute(_STORED, {"task_id": start.task_id}).mappings().first()
            decision, begun = _decide(claim, stored, max_begun, take_over=take_over)
            if decision is Decision.RUN:
                connection.execute(self._overwrite, _values_of(start) | {"begun": begun})
        worker = stored["worker"] if stored is not None else None
        return Verdict(start.task_id, start.attempt, decision, begun, worker)

    def release(self, starts: Iterable[Released]) -> None:
        """Take back recorded starts whose bodies have not begun. In one transaction."""
        released = [{f"of_{name}": value for name, value in asdict(start).items()} for start in starts]
        if not released:
            return
        with store_errors(self._url), self._engine.begin() as connection:
            connection.execute(_FORGET_FIRST_START, released)
            connection.execute(_TAKE_BACK_START, released)

    def running_under(self, worker: str) -> list[Started]:
        """Return the tasks that `worker` has started and not ended, as far as is recorded."""
        with store_errors(self._url), self._engine.connect() as connection:
            return [_started_of(row) for row in connection.execute(_RUNNING_UNDER, {"worker": worker})]

    def workers_running(self) -> list[str]:
        """Return the workers under which early-ack tasks have started and not ended."""
        with store_errors(self._url), self._engine.connect() as connection:
            return list(connection.execute(_WORKERS_RUNNING).scalars())

    def merge_handlers(self, handlers: Iterable[HandlerBindings], heard_at: datetime) -> dict[str, frozenset[str]]:
        """Add to what is known of these handlers, heard of at `heard_at`. In one transaction.

        Returns for each all its recorded bindings: what it has declared now, and what it had declared before. Raises
        RecordRejectedError if the database refuses one of them.
        """
        recorded = {}
        with _write_errors(self._url), self._engine.begin() as connection:
            for handler in sorted(handlers, key=attrgetter("name")):
                connection.execute(self._note_handler, _handler_row(handler, heard_at))
                recorded[handler.name] = _bindings_of(connection, handler.name).union(handler.bindings)
                connection.execute(_SET_BINDINGS, _bindings_row(handler.name, recorded[handler.name]))
        return recorded

    def forget_bindings(self, name: str, bindings: Iterable[str]) -> None:
        """Record that a handler's queue is not bound by these any more. In one transaction."""
        with store_errors(self._url), self._engine.begin() as connection:
            if connection.execute(_LOCK_HANDLER, {"of_name": name}).rowcount:
                kept = _bindings_of(connection, name).difference(bindings)
                connection.execute(_SET_BINDINGS, _bindings_row(name, kept))

    def delete_handler(self, gone: HandlerGone) -> None:
        """Forget a handler whose queue was deleted, unless a worker has declared it since."""
        with store_errors(self._url), self._engine.begin() as connection:
            connection.execute(_DELETE_HANDLER, asdict(gone))

    def prune(self, before: datetime, limit: int = 1000) -> int:
        """Delete the oldest tasks that ended before `before`, `limit` at most, and return how many there were."""
        bounds = {"oldest_id": ids.oldest_id(before), "before": before, "limit": limit}
        with store_errors(self._url), self._engine.begin() as connection:
            return connection.execute(_PRUNE, bounds).rowcount

    def close(self) -> None:
        """Close the connection. A later call opens a new one."""
        self._engine.dispose()


_RUNNING_UNDER = select(
    _columns.task_id,
    _columns.task_name,
    _columns.app,
    _columns.attempt,
    _columns.worker,
    _columns.acks_late,
    _columns.sent_at,
    _columns.started_at,
).where(_columns.worker == bindparam("worker"), is_started)

# SQLAlchemy keeps the names of the columns for the values that an update sets.
_is_released = and_(
    _columns.task_id == bindparam("of_task_id"),
    _columns.attempt == bindparam("of_attempt"),
    _columns.worker == bindparam("of_worker"),
    is_started,
)
_FORGET_FIRST_START = delete(task_status).where(_is_released, _columns.begun == 1)
# Without a worker it is taken back once only, however often that is told.
_TAKE_BACK_START = update(task_status).where(_is_released).values(begun=_columns.begun - 1, worker=null())

_WORKERS_RUNNING = select(_columns.worker).where(is_started, _columns.acks_late == false()).distinct()

# A task ends after it was sent, so the ids made at `before` and later need no look.
_PRUNE = delete(task_status).where(
    _columns.task_id.in_(
        select(_columns.task_id)
        .where(_columns.task_id < bindparam("oldest_id"), _columns.finished_at < bindparam("before"))
        .order_by(_columns.task_id)
        .limit(bindparam("limit"))
    )
)


# Another recorder may be about to stop: what is read, changed and written is locked by a write before.
_is_handler = event_handler.c.name == bindparam("of_name")
_LOCK_HANDLER = update(event_handler).where(_is_handler).values(bindings=event_handler.c.bindings)
_BINDINGS = select(event_handler.c.bindings).where(_is_handler)
_SET_BINDINGS = update(event_handler).where(_is_handler).values(bindings=bindparam("kept"))
_DELETE_HANDLER = delete(event_handler).where(
    event_handler.c.name == bindparam("name"), event_handler.c.declared_at <= bindparam("gone_at")
)

_STORED = select(_columns.attempt, _columns.rank, _columns.worker, _columns.started_at, _columns.begun).where(
    _columns.task_id == bindparam("task_id")
)


def _moves_forward(new: Any, old: Any) -> ColumnElement[bool]:
    # _replaces() says the same of two records in one batch.
    return tuple_(new.attempt, new.rank) > tuple_(old.attempt, old.rank)


def _upsert(backend: str, condition: Callable[[Any, Any], ColumnElement[bool]] | None) -> Insert:
    insert = postgresql.insert if backend == "postgresql" else sqlite.insert
    statement = insert(task_status)
    old, new = _columns, statement.excluded
    values: _Values = {column.name: new[column.name] for column in old if not column.primary_key}
    # A Completion does not know these two: what its start said stays.
    values["acks_late"] = func.coalesce(new.acks_late, old.acks_late)
    if condition is not None:
        values["begun"] = case((new.attempt > old.attempt, 1), else_=old.begun)
    return statement.on_conflict_do_update(
        index_elements=[old.task_id], set_=values, where=None if condition is None else condition(new, old)
    )


def _upsert_handler(backend: str) -> Insert:
    """Return what makes a handler's row without bindings, or only brings its times forward."""
    insert = postgresql.insert if backend == "postgresql" else sqlite.insert
    statement = insert(event_handler)
    old, new = event_handler.c, statement.excluded
    newest = case((new.declared_at > old.declared_at, new.declared_at), else_=old.declared_at)
    return statement.on_conflict_do_update(
        index_elements=[old.name], set_={"declared_at": newest, "heard_at": new.heard_at}
    )


def _handler_row(handler: HandlerBindings, heard_at: datetime) -> _Values:
    return {"name": handler.name, "bindings": "[]", "declared_at": handler.declared_at, "heard_at": heard_at}


def _bindings_of(connection: Connection, name: str) -> frozenset[str]:
    return frozenset(orjson.loads(connection.execute(_BINDINGS, {"of_name": name}).scalar_one()))


def _bindings_row(name: str, bindings: Iterable[str]) -> _Values:
    return {"of_name": name, "kept": orjson.dumps(sorted(bindings)).decode()}


def _decide(claim: Claim, stored: RowMapping | None, max_begun: int, *, take_over: bool) -> tuple[Decision, int]:
    """Return the decision, and how often the body has begun then."""
    start = claim.start
    if stored is None or stored["attempt"] < start.attempt:
        return Decision.RUN, 1
    begun: int = stored["begun"]
    if stored["attempt"] > start.attempt or stored["rank"] > Rank.STARTED:
        return Decision.ENDED, begun
    if (stored["worker"], stored["started_at"]) == (start.worker, start.started_at):
        return Decision.RUN, begun  # asked before
    if not (start.acks_late and take_over):
        return Decision.STARTED_ELSEWHERE, begun
    if begun >= max_begun:
        return Decision.BEGUN_TOO_OFTEN, begun
    return Decision.RUN, begun + 1


def _newest_rows(records: Iterable[Started | Completion]) -> list[_Values]:
    """Return one row a task, sorted by id so that two writers could not lock each other out."""
    rows: dict[str, _Values] = {}
    for record in records:
        new = _values_of(record)
        old = rows.get(record.task_id)
        if old is None or _replaces(new, old):
            rows[record.task_id] = new if old is None else _with_known_acks_late(new, old)
    return sorted(rows.values(), key=itemgetter("task_id"))


def _replaces(new: _Values, old: _Values) -> bool:
    return bool((new["attempt"], new["rank"]) > (old["attempt"], old["rank"]))


def _with_known_acks_late(new: _Values, old: _Values) -> _Values:
    return new if new["acks_late"] is not None else {**new, "acks_late": old["acks_late"]}


def _values_of(record: Started | Completion) -> _Values:
    ended = _values_of_end(record) if isinstance(record, Completion) else _values_of_start(record)
    return {
        "task_id": record.task_id,
        "app": record.app,
        "task_name": record.task_name,
        "attempt": record.attempt,
        "worker": record.worker,
        "sent_at": record.sent_at,
        "started_at": record.started_at,
        **ended,
    }


def _values_of_start(record: Started) -> _Values:
    return {
        "rank": Rank.STARTED.value,
        "status": Status.STARTED.value,
        "result": None,
        "error": None,
        "acks_late": record.acks_late,
        "finished_at": None,
    }


def _values_of_end(record: Completion) -> _Values:
    return {
        "rank": record.rank.value,
        "status": record.status.value,
        "result": _json_text(record.result),
        "error": None if record.error is None else _json_text(asdict(record.error)),
        "acks_late": None,
        "finished_at": record.finished_at,
    }


def _json_text(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return _lenient_json_text(value)


def _lenient_json_text(value: Any) -> str:
    """Return JSON of what orjson refuses: lone surrogates, each of which becomes a question mark."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as exc:
        raise RecordRejectedError(f"a task's end cannot be recorded, as it is not JSON: {exc}") from exc
    return text.encode("utf-8", "replace").decode()


@contextmanager
def _write_errors(url: URL) -> Iterator[None]:
    with store_errors(url):
        try:
            yield
        except (StatementError, UnicodeEncodeError, OverflowError) as exc:
            if _is_refusal(exc):
                raise RecordRejectedError(f"the status store refuses a record: {_reason(exc)}") from exc
            raise


def _is_refusal(error: Exception) -> bool:
    # A plain StatementError is SQLAlchemy's: the value did not get as far as the driver.
    return not isinstance(error, StatementError) or (
        isinstance(error, DataError | IntegrityError) or type(error) is StatementError
    )


def _reason(error: Exception) -> str:
    return str(error.orig if isinstance(error, StatementError) else error)


def _started_of(row: Row[*tuple[Any, ...]]) -> Started:
    return Started(**row._mapping)
