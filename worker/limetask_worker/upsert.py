"""Many rows of the table of statuses, written at once: new ones, and newer ones than those there.

SQLAlchemy looks at each value of each row, which takes longer than the database takes for the row. Here the values go
past it, each database's own shortest way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, Protocol, TypeAlias

import orjson
from sqlalchemy import ColumnElement, Connection, Select, Text, bindparam, cast, column, func, select, true
from sqlalchemy.dialects import postgresql, sqlite

from limetask.store_tables import task_status

Row: TypeAlias = dict[str, Any]
"""The value of every column of the table, by name. Times are in UTC."""

MayReplace: TypeAlias = Callable[[Any, Any], ColumnElement[bool]]
"""Makes of the columns of a new row and of an old one the condition under which the new one takes its place."""

MayBeWritten: TypeAlias = Callable[[Any], ColumnElement[bool]]
"""Makes of the columns of a new row the condition under which it is written at all."""

_Insert: TypeAlias = postgresql.Insert | sqlite.Insert
_columns = task_status.c
_NAMES = [one.name for one in _columns]
_in_order = itemgetter(*_NAMES)


class Upsert(Protocol):
    """Writes rows, no two of them with the same id. For one thread at a time."""

    def write(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Write these rows. Raises what the driver raises, and TypeError for text that is no Unicode."""


def upsert(backend: str, may_replace: MayReplace | None = None, may_be_written: MayBeWritten | None = None) -> Upsert:
    """Return what writes rows into a database of this kind; they replace what is there if they may, or always."""
    kind = PostgresqlUpsert if backend == "postgresql" else SqliteUpsert
    return kind(may_replace, may_be_written)


class PostgresqlUpsert:
    """Sends all rows as one JSON text: one statement to run, one value to pass."""

    def __init__(self, may_replace: MayReplace | None, may_be_written: MayBeWritten | None) -> None:
        new = (
            func.json_to_recordset(cast(bindparam("rows", type_=Text), postgresql.JSON))
            .table_valued(*(column(one.name, one.type) for one in _columns))
            .render_derived(name="new", with_types=True)
        )
        insert = postgresql.insert(task_status).from_select(_NAMES, _selected(new.c, may_be_written))
        self._statement = _replacing(insert, may_replace)

    def write(self, connection: Connection, rows: Sequence[Row]) -> None:
        connection.execute(self._statement, {"rows": orjson.dumps(rows).decode()})


class SqliteUpsert:
    """Gives the rows to the driver, which runs the statement for each without a way through Python."""

    def __init__(self, may_replace: MayReplace | None, may_be_written: MayBeWritten | None) -> None:
        new = select(*(bindparam(name).label(name) for name in _NAMES)).subquery("new")
        insert = sqlite.insert(task_status).from_select(_NAMES, _selected(new.c, may_be_written))
        self._statement = str(_replacing(insert, may_replace).compile(dialect=sqlite.dialect()))

    def write(self, connection: Connection, rows: Sequence[Row]) -> None:
        connection.exec_driver_sql(self._statement, [_in_order(_as_sqlite_keeps_it(row)) for row in rows])


def _selected(new: Any, may_be_written: MayBeWritten | None) -> Select[Any]:
    # SQLite takes what follows a SELECT without any WHERE for a part of it.
    return select(*new).where(true() if may_be_written is None else may_be_written(new))


def _replacing(insert: _Insert, may_replace: MayReplace | None) -> _Insert:
    old, new = _columns, insert.excluded
    values: dict[str, ColumnElement[Any]] = {one.name: new[one.name] for one in old if not one.primary_key}
    # A Completion does not know this: what its start said stays.
    values["acks_late"] = func.coalesce(new.acks_late, old.acks_late)
    condition = None if may_replace is None else may_replace(new, old)
    return insert.on_conflict_do_update(index_elements=[old.task_id], set_=values, where=condition)


def _as_sqlite_keeps_it(row: Row) -> Row:
    # Just as SQLAlchemy's types write ids and times, and read them.
    return row | {
        "task_id": row["task_id"].replace("-", ""),
        "sent_at": _text_of(row["sent_at"]),
        "started_at": _text_of(row["started_at"]),
        "finished_at": _text_of(row["finished_at"]),
    }


def _text_of(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(" ", "microseconds")[: len("YYYY-MM-DD HH:MM:SS.ffffff")]
