"""The status store's writing side: only the recorder uses it.

A task's row only moves forward, in (attempt, rank), and that a message was refused comes before all. So records may
arrive twice or in any order, in batches cut anywhere, and the row is the same in the end.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

import orjson
from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    and_,
    bindparam,
    case,
    delete,
    false,
    literal_column,
    select,
    tuple_,
    update,
)
from sqlalchemy import Row as ReadRow
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, IntegrityError, StatementError

from limetask import ids
from limetask.database import open_engine, store_errors
from limetask.errors import StoreError
from limetask.message import (
    Claim,
    Completion,
    Decision,
    HandlerBindings,
    HandlerGone,
    Refused,
    Released,
    Started,
    Verdict,
)
from limetask.status import Rank, Status
from limetask.store import StoreMark
from limetask.store_tables import event_handler, is_started, store_mark, task_status
from limetask.store_url import parse_store_url
from limetask_worker.id_parts import in_parts
from limetask_worker.starts import Starts, earlier_starts_text, start_of, starts_in
from limetask_worker.taken_back import (
    TaskStart,
    is_not_taken_back,
    note_ended,
    note_taken_back,
    prune_taken_back,
    taken_back_of,
)
from limetask_worker.upsert import Row, upsert

# PostgreSQL's class of errors for a value that is too large, as for an index.
_LIMIT_EXCEEDED = "54"

WRITE_SECONDS = 30
"""Time for PostgreSQL to run one statement, or for SQLite to get its lock."""

# A dead letter may be older than its task's row, or have none if the broker has set it aside. Nobody retries so often.
_LAST_UNRECORDED = 100

_columns = task_status.c
_Values = dict[str, Any]
_Stored = Mapping[str, Any]
_Record = Started | Completion


class RecordRejectedError(StoreError):
    """The database can be reached, and refuses the data itself: the same records would be refused again."""


class StoreWriter:
    """Writes statuses and prunes them. For one thread, in the process that made it.

    The schema must be there: see `limetask_worker.schema.upgrade`. Every method raises StoreError when the store
    cannot be used now, having changed nothing, and the next call connects again; RecordRejectedError if the database
    refuses something of what it was given, whichever it is.
    """

    def __init__(self, url: str) -> None:
        """Raises StoreUrlError if `url` is not that of an SQLite file or a PostgreSQL database."""
        self._url = parse_store_url(url)
        # FULL, since a record is acked to the broker once it is committed: a power cut must not undo the commit.
        self._engine = open_engine(self._url, answer_seconds=WRITE_SECONDS, sqlite_pragmas=("synchronous = FULL",))
        self._bring_forward = upsert(self._url.get_backend_name(), _moves_forward, is_not_taken_back)
        self._overwrite = upsert(self._url.get_backend_name())
        self._note_handler = _upsert_handler(self._url.get_backend_name())

    def merge(self, records: Iterable[Started | Completion]) -> None:
        """Bring the rows of these tasks forward, in one transaction: all of them or none."""
        rows, other_starts = _newest_rows(records)
        if not rows:
            return
        with self._transaction() as connection:
            self._bring_forward.write(connection, rows)
            for row in other_starts:
                self._bring_forward.write(connection, [row])

    def unheard_of(self, starts: Iterable[Started]) -> set[tuple[str, int]]:
        """Return the ids and attempts of those of these tasks of whose attempt, or a later one, nothing is recorded."""
        attempts = {start.task_id: start.attempt for start in starts}
        with store_errors(self._url), self._engine.begin() as connection:
            known = _stored(connection, attempts)
        return {
            (task_id, attempt) for task_id, attempt in attempts.items() if not _is_known(known.get(task_id), attempt)
        }

    def claim(self, claim: Claim, max_begun: int, *, take_over: bool) -> Verdict:
        """Decide one claim, as `claim_all` does."""
        return self.claim_all([claim], max_begun, take_over=take_over)[0]

    def claim_all(self, claims: Sequence[Claim], max_begun: int, *, take_over: bool) -> list[Verdict]:
        """Decide whether tasks may run, one after the other, and record the starts of those that may.

        All in one transaction. To decide the same claim twice, as after a redelivery, gives the same answer, until its
        worker takes the start back: it is not granted then, nor does anybody wait for it. A task may begin `max_begun`
        times. `take_over` is whether a late task may be taken from the worker that has started it.
        """
        with self._transaction() as connection:
            known = _stored(connection, [claim.start.task_id for claim in claims])
            taken_back = taken_back_of(connection, [claim.start for claim in claims])
            given: dict[str, Row] = {}
            verdicts = []
            for start in [claim.start for claim in claims]:
                stored = known.get(start.task_id)
                decision, starts = _decide(start, stored, taken_back, max_begun, take_over=take_over)
                verdicts.append(_verdict(start, decision, starts, stored))
                if decision is Decision.RUN:
                    known[start.task_id] = given[start.task_id] = _row_of_start(start, starts)
            if given:
                self._overwrite.write(connection, [given[task_id] for task_id in sorted(given)])
        return verdicts

    def release(self, starts: Iterable[Released]) -> set[tuple[str, int]]:
        """Take back starts whose bodies have not begun, each once, however often that is told.

        A task that nobody else has started is pending again. A start that is not recorded yet never will be. In one
        transaction. Returns the ids and attempts of the tasks of which a start was recorded, and is not any more.
        """
        released = list(starts)
        with self._transaction() as connection:
            note_taken_back(connection, released, datetime.now(UTC))
            known = _stored(connection, [one.task_id for one in released])
            left = _left_after(released, known)
            forgotten = [{"of_task_id": task_id} for task_id, starts in left.items() if not starts.count]
            kept = [_starts_row(task_id, starts) for task_id, starts in left.items() if starts.count]
            if forgotten:
                connection.execute(_FORGET_STARTS, forgotten)
            if kept:
                connection.execute(_SET_STARTS, kept)
        return {
            (task_id, known[task_id]["attempt"])
            for task_id, starts in left.items()
            if starts != starts_in(known[task_id])
        }

    def note_ended(self, worker: str) -> None:
        """Grant no claim of this worker any more, from now on, whoever decides it: it has ended."""
        with self._transaction() as connection:
            note_ended(connection, worker, datetime.now(UTC))

    def end_of_refused(self, refused: Refused) -> Completion | None:
        """Return how a task ends whose message was refused, None if something better is known of it."""
        with store_errors(self._url), self._engine.begin() as connection:
            stored = _stored(connection, [refused.end.task_id]).get(refused.end.task_id)
        return _end_of_refused(refused, stored)

    def running_under(self, worker: str) -> list[Started]:
        """Return the tasks that `worker` has started and not ended, as far as is recorded."""
        with self._transaction() as connection:
            return [_started_of(row) for row in connection.execute(_RUNNING_UNDER, {"worker": worker})]

    def workers_running(self) -> list[str]:
        """Return the workers under which early-ack tasks have started and not ended."""
        with self._transaction() as connection:
            return list(connection.execute(_WORKERS_RUNNING).scalars())

    def merge_handlers(self, handlers: Iterable[HandlerBindings], heard_at: datetime) -> dict[str, frozenset[str]]:
        """Add to what is known of these handlers, heard of at `heard_at`. In one transaction.

        Returns for each all its recorded bindings: what it has declared now, and what it had declared before.
        """
        recorded = {}
        with self._transaction() as connection:
            for handler in sorted(handlers, key=attrgetter("name")):
                connection.execute(self._note_handler, _handler_row(handler, heard_at))
                recorded[handler.name] = _bindings_of(connection, handler.name).union(handler.bindings)
                connection.execute(_SET_BINDINGS, _bindings_row(handler.name, recorded[handler.name]))
        return recorded

    def forget_bindings(self, name: str, bindings: Iterable[str]) -> None:
        """Record that a handler's queue is not bound by these any more. In one transaction."""
        with self._transaction() as connection:
            if connection.execute(_LOCK_HANDLER, {"of_name": name}).rowcount:
                kept = _bindings_of(connection, name).difference(bindings)
                connection.execute(_SET_BINDINGS, _bindings_row(name, kept))

    def delete_handler(self, gone: HandlerGone) -> None:
        """Forget a handler whose queue was deleted, unless a worker has declared it since."""
        with self._transaction() as connection:
            connection.execute(_DELETE_HANDLER, asdict(gone))

    def note_recorder(self, recorder: str, seen_at: datetime) -> None:
        """Record who writes here, for those who wonder whether anybody does."""
        with self._transaction() as connection:
            connection.execute(_NOTE_RECORDER, {"recorder": recorder, "recorder_seen_at": seen_at})

    def mark(self) -> StoreMark | None:
        """Return which store it is, and who recorded last into it."""
        with self._transaction() as connection:
            return next((StoreMark(*row) for row in connection.execute(select(store_mark))), None)

    def prune(self, before: datetime, limit: int = 1000) -> int:
        """Delete the oldest tasks that ended before `before`, `limit` at most, and return how many there were."""
        bounds = {"oldest_id": ids.oldest_id(before), "before": before, "limit": limit}
        with self._transaction() as connection:
            return connection.execute(_PRUNE, bounds).rowcount

    def prune_taken_back(self, before: datetime, limit: int = 1000) -> int:
        """Forget what was taken back before `before`, `limit` starts at most, and return how many there were."""
        with self._transaction() as connection:
            return prune_taken_back(connection, before, limit)

    def close(self) -> None:
        """Close the connection. A later call opens a new one."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with _write_errors(self._url), self._engine.begin() as connection:
                yield connection
        except RecordRejectedError:
            raise
        except StoreError:
            # The session itself may be at fault: one that was opened while the server took no writes stays read-only.
            self._engine.dispose()
            raise


_NOTE_RECORDER = update(store_mark).values(
    recorder=bindparam("recorder"), recorder_seen_at=bindparam("recorder_seen_at")
)

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
_is_running = and_(_columns.task_id == bindparam("of_task_id"), is_started)
_FORGET_STARTS = delete(task_status).where(_is_running)
_SET_STARTS = (
    update(task_status).where(_is_running).values(worker=bindparam("newest"), earlier_starts=bindparam("earlier"))
)

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

# Locked until it is changed: another recorder may be about to stop.
_STORED = (
    select(
        _columns.task_id,
        _columns.attempt,
        _columns.rank,
        _columns.worker,
        _columns.acks_late,
        _columns.started_at,
        _columns.earlier_starts,
    )
    .where(_columns.task_id.in_(bindparam("task_ids", expanding=True)))
    .order_by(_columns.task_id)
    .with_for_update()
)


def _moves_forward(new: Any, old: Any) -> ColumnElement[bool]:
    # _replaces() says the same of two records in one batch.
    return _precedence_of_columns(new) > _precedence_of_columns(old)


def _precedence_of_columns(row: Any) -> ColumnElement[Any]:
    # Without parameters, since SQLite's has one for each column and no others.
    is_refused = row.rank == literal_column(str(Rank.REFUSED.value))
    return tuple_(case((is_refused, literal_column("0")), else_=literal_column("1")), row.attempt, row.rank)


def _upsert_handler(backend: str) -> postgresql.Insert | sqlite.Insert:
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


def _stored(connection: Connection, ids_of_tasks: Iterable[str]) -> dict[str, _Stored]:
    """Return what is stored of these tasks, by their ids."""
    rows: dict[str, _Stored] = {}
    for some in in_parts(ids_of_tasks):
        rows |= {row["task_id"]: row for row in connection.execute(_STORED, {"task_ids": some}).mappings()}
    return rows


def _is_known(stored: _Stored | None, attempt: int) -> bool:
    """Return True if this attempt, or a later one, has started or ended; a refused message tells nothing of that."""
    return stored is not None and stored["rank"] != Rank.REFUSED and bool(stored["attempt"] >= attempt)


def _decide(
    start: Started, stored: _Stored | None, taken_back: Set[TaskStart], max_begun: int, *, take_over: bool
) -> tuple[Decision, Starts]:
    """Return the decision on a claim to this start, and the starts that count then."""
    own = start_of(start)
    if (start.task_id, own) in taken_back:
        return Decision.STARTED_ELSEWHERE, Starts(None)
    if _may_follow(stored, start.attempt):
        return Decision.RUN, Starts(own)
    if stored is None:
        return Decision.UNEXPECTED, Starts(None)
    starts = starts_in(stored)
    if stored["attempt"] < start.attempt:
        return Decision.UNEXPECTED, starts
    if stored["attempt"] > start.attempt or stored["rank"] > Rank.STARTED:
        return Decision.ENDED, starts
    if starts.newest == own:
        return Decision.RUN, starts  # asked before
    if not (start.acks_late and take_over):
        return Decision.STARTED_ELSEWHERE, starts
    taken_over = starts.taken_over_by(own)
    return (Decision.RUN, taken_over) if taken_over.count <= max_begun else (Decision.BEGUN_TOO_OFTEN, starts)


def _may_follow(stored: _Stored | None, attempt: int) -> bool:
    """Return True if an attempt may be the next one of a task, as a retried dead letter is.

    What has ended by its body, or runs and is acked already, has no letter. A refused message says nothing of the task
    that it names.
    """
    if stored is None:
        return attempt <= _LAST_UNRECORDED
    if stored["rank"] == Rank.REFUSED:
        return bool(attempt <= stored["attempt"] + 1)
    has_letter = stored["acks_late"] if stored["rank"] == Rank.STARTED else stored["rank"] < Rank.ENDED
    return bool(has_letter and attempt == stored["attempt"] + 1)


def _end_of_refused(refused: Refused, stored: _Stored | None) -> Completion | None:
    """Anybody may have named the task in a message, but not made the broker deliver it a second time.

    So a late task whose worker has lost it ends when another one refuses it: nobody else would tell.
    """
    end = refused.end
    if stored is not None and stored["rank"] == Rank.STARTED:
        is_its_own = refused.was_delivered_before and stored["acks_late"] and stored["attempt"] == end.attempt
        return replace(end, started_at=stored["started_at"]) if is_its_own else None
    if stored is not None and (stored["rank"], stored["attempt"] + 1) != (Rank.REFUSED, end.attempt):
        return None
    return end if _may_follow(stored, end.attempt) else None


def _verdict(start: Started, decision: Decision, starts: Starts, stored: _Stored | None) -> Verdict:
    worker = None if stored is None else stored["worker"]
    return Verdict(start.task_id, start.attempt, start.started_at, decision, starts.count, worker)


def _left_after(released: Iterable[Released], known: Mapping[str, _Stored]) -> dict[str, Starts]:
    """Return the starts that are left of each task of which some were taken back."""
    left: dict[str, Starts] = {}
    for one in released:
        stored = known.get(one.task_id)
        if stored is not None and (stored["attempt"], stored["rank"]) == (one.attempt, Rank.STARTED):
            starts = left.get(one.task_id) or starts_in(stored)
            left[one.task_id] = starts.without(start_of(one))
    return left


def _starts_row(task_id: str, starts: Starts) -> _Values:
    newest = None if starts.newest is None else starts.newest.worker
    return {"of_task_id": task_id, "newest": newest, "earlier": earlier_starts_text(starts)}


def _newest_rows(records: Iterable[_Record]) -> tuple[list[Row], list[Row]]:
    """Return one row a task, sorted by id so that two writers could not lock each other out, and other starts.

    These are of the same attempts, by others: they count if the first start of that attempt was taken back.
    """
    newest: dict[str, _Record] = {}
    acks_late: dict[str, bool] = {}
    others: list[Row] = []
    for record in records:
        old = newest.get(record.task_id)
        if old is None or _replaces(record, old):
            newest[record.task_id] = record
            if isinstance(record, Started):
                acks_late[record.task_id] = record.acks_late
        elif isinstance(record, Started) and isinstance(old, Started):
            others.append(_row_of_start(record))
    return [_row_of(newest[task_id], acks_late.get(task_id)) for task_id in sorted(newest)], others


def _replaces(new: _Record, old: _Record) -> bool:
    if isinstance(new, Completion) and new.error is None and isinstance(old, Started):  # as nearly always
        return new.attempt >= old.attempt
    return _precedence(new) > _precedence(old)


def _precedence(record: _Record) -> tuple[bool, int, Rank]:
    rank = _rank_of(record)
    return rank is not Rank.REFUSED, record.attempt, rank


def _rank_of(record: _Record) -> Rank:
    return record.rank if isinstance(record, Completion) else Rank.STARTED


def _row_of(record: _Record, acks_late: bool | None) -> Row:
    return _row_of_end(record, acks_late) if isinstance(record, Completion) else _row_of_start(record)


def _row_of_start(start: Started, starts: Starts | None = None) -> Row:
    return {
        "task_id": start.task_id,
        "app": start.app,
        "task_name": start.task_name,
        "attempt": start.attempt,
        "rank": Rank.STARTED.value,
        "status": Status.STARTED.value,
        "result": None,
        "error": None,
        "worker": start.worker,
        "acks_late": start.acks_late,
        "earlier_starts": None if starts is None else earlier_starts_text(starts),
        "sent_at": _in_utc(start.sent_at),
        "started_at": _in_utc(start.started_at),
        "finished_at": None,
    }


def _row_of_end(end: Completion, acks_late: bool | None) -> Row:
    return {
        "task_id": end.task_id,
        "app": end.app,
        "task_name": end.task_name,
        "attempt": end.attempt,
        "rank": end.rank.value,
        "status": end.status.value,
        "result": _json_text(end.result),
        "error": None if end.error is None else _json_text(asdict(end.error)),
        "worker": end.worker,
        "acks_late": acks_late,
        "earlier_starts": None,
        "sent_at": _in_utc(end.sent_at),
        "started_at": None if end.started_at is None else _in_utc(end.started_at),
        "finished_at": _in_utc(end.finished_at),
    }


def _in_utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise RecordRejectedError(f"a record cannot be written: the time {moment.isoformat()} has no time zone")
    return moment.astimezone(UTC)


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
        except (StatementError, UnicodeEncodeError, OverflowError, orjson.JSONEncodeError) as exc:
            if _is_refusal(exc):
                raise RecordRejectedError(f"the status store refuses a record: {_reason(exc)}") from exc
            raise


def _is_refusal(error: Exception) -> bool:
    """Return True if the data is at fault. Whatever is not known to be a refusal is a fault of the store."""
    # A plain StatementError is SQLAlchemy's: the value did not get as far as the driver.
    if not isinstance(error, StatementError) or type(error) is StatementError:
        return True
    sql_state = getattr(error.orig, "sqlstate", None) or ""
    return isinstance(error, DataError | IntegrityError) or sql_state.startswith(_LIMIT_EXCEEDED)


def _reason(error: Exception) -> str:
    return str(error.orig if isinstance(error, StatementError) else error)


def _started_of(row: ReadRow[*tuple[Any, ...]]) -> Started:
    return Started(**row._mapping)
