"""Starts whose bodies never began, as their workers have told: the store never takes them for starts again.

The record of a start, or the claim to it, can come once more after that: when a recorder died before its ack, when it
stood still meanwhile, or when its node of a cluster was cut off and catches up. Written then, the task would count as
started by somebody who does not have it.

A worker that has ended takes back all that it has claimed and was not granted: a recorder that was deposed, and does
not know of the end, may be about to grant such a claim.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    bindparam,
    delete,
    exists,
    literal_column,
    not_,
    select,
    tuple_,
)
from sqlalchemy.dialects import postgresql, sqlite

from limetask.message import Released, Started
from limetask.status import Rank
from limetask.store_tables import start_taken_back
from limetask_worker.id_parts import in_parts
from limetask_worker.starts import Start, start_of

TaskStart = tuple[str, Start]
"""A task's id, and one start of it."""

_columns = start_taken_back.c
# No task has this id, and no start this time: a row with both says that its worker has ended.
_ALL_CLAIMS = "00000000-0000-0000-0000-000000000000"
_WHENEVER = datetime(1970, 1, 1, tzinfo=UTC)
_KEY = (_columns.task_id, _columns.worker, _columns.started_at)
_OF_TASKS = select(*_KEY).where(_columns.task_id.in_(bindparam("task_ids", expanding=True)))
_ENDED = select(_columns.worker).where(
    _columns.task_id == _ALL_CLAIMS,
    _columns.worker.in_(bindparam("workers", expanding=True)),
    _columns.started_at == _WHENEVER,
)
_PRUNE = delete(start_taken_back).where(
    tuple_(*_KEY).in_(select(*_KEY).where(_columns.told_at < bindparam("before")).limit(bindparam("limit")))
)
_INSERT = {
    "postgresql": postgresql.insert(start_taken_back).on_conflict_do_nothing(),
    "sqlite": sqlite.insert(start_taken_back).on_conflict_do_nothing(),
}


def note_taken_back(connection: Connection, released: Iterable[Released], told_at: datetime) -> None:
    """Remember these starts, whether they are recorded or not; to be told of one again changes nothing."""
    # In one order, so that two writers could not lock each other out.
    values = [
        {"task_id": one.task_id, "worker": one.worker, "started_at": one.started_at, "told_at": told_at}
        for one in sorted(released, key=attrgetter("task_id", "worker", "started_at"))
    ]
    if values:
        connection.execute(_INSERT[connection.dialect.name], values)


def note_ended(connection: Connection, worker: str, told_at: datetime) -> None:
    """Remember that a worker claims nothing more."""
    values = {"task_id": _ALL_CLAIMS, "worker": worker, "started_at": _WHENEVER, "told_at": told_at}
    connection.execute(_INSERT[connection.dialect.name], values)


def taken_back_of(connection: Connection, starts: Iterable[Started]) -> frozenset[TaskStart]:
    """Return which starts of these tasks were taken back, and which of these are claims of workers that have ended."""
    claimed = list(starts)
    ids_of_tasks, workers = in_parts(one.task_id for one in claimed), in_parts(one.worker for one in claimed)
    rows = (row for some in ids_of_tasks for row in connection.execute(_OF_TASKS, {"task_ids": some}))
    told = {(task_id, Start(worker, started_at)) for task_id, worker, started_at in rows}
    ended = {worker for some in workers for worker in connection.execute(_ENDED, {"workers": some}).scalars()}
    return frozenset(told | {(one.task_id, start_of(one)) for one in claimed if one.worker in ended})


def is_not_taken_back(new: Any) -> ColumnElement[bool]:
    """Return the condition that a row of a task, of which these are the columns, is not that of such a start."""
    is_same = and_(*(mine == new[mine.name] for mine in _KEY))
    is_start = new.rank == literal_column(str(Rank.STARTED.value))
    return not_(and_(is_start, exists().where(is_same)))


def prune_taken_back(connection: Connection, before: datetime, limit: int) -> int:
    """Forget those that were told before this moment, `limit` at most, and return how many there were."""
    return connection.execute(_PRUNE, {"before": before, "limit": limit}).rowcount
