"""The status store's tables, as data. Only the recorder writes them, and only its migrations make them."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Dialect,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
    literal_column,
)
from sqlalchemy.types import TypeDecorator

from limetask.status import Status

SCHEMA_VERSION = "0006"
"""The schema that this limetask writes and reads."""

VERSION_TABLE = "limetask_schema_version"


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, exact to the microsecond, that comes back in UTC from every database."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return `value` in UTC, which is what SQLite's text then holds. Raises ValueError for a naive one."""
        if value is not None and value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return in UTC what SQLite gives naive, and PostgreSQL in the session's time zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData()

# `result` and `error` are JSON as TEXT, since JSONB refuses \u0000. A result of None is the JSON null, so that NULL
# means unfinished. `earlier_starts` is JSON too: the starts of a late task by workers that it was taken over from.
# Nothing but the primary key serves to prune: ids sort by age.
task_status = Table(
    "limetask_task_status",
    metadata,
    Column("task_id", Uuid(as_uuid=False), primary_key=True),
    Column("app", Text, nullable=False),
    Column("task_name", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("rank", SmallInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("result", Text),
    Column("error", Text),
    Column("worker", Text),
    Column("acks_late", Boolean),
    Column("earlier_starts", Text),
    Column("sent_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
)

# A literal, not a parameter: a database uses a partial index only if it sees the condition in the query.
is_started = task_status.c.status == literal_column(f"'{Status.STARTED}'")

Index(
    "limetask_task_status_started",
    task_status.c.worker,
    postgresql_where=is_started,
    sqlite_where=is_started,
)

# What a worker started and took back, since the body did not begin: never to be recorded as started again, however late
# the record of it comes once more. `told_at` is when the recorder heard of it, by its clock.
start_taken_back = Table(
    "limetask_start_taken_back",
    metadata,
    Column("task_id", Uuid(as_uuid=False), primary_key=True),
    Column("worker", Text, primary_key=True),
    Column("started_at", UtcDateTime, primary_key=True),
    Column("told_at", UtcDateTime, nullable=False),
)

# AMQP can list neither queues nor bindings, so what workers have declared is kept here. `bindings` is a JSON list of
# topic patterns: all that the queue is bound to. `declared_at` is when a worker loaded the newest code, by its clock;
# `heard_at` is when the recorder last heard of any worker with the handler.
event_handler = Table(
    "limetask_event_handler",
    metadata,
    Column("name", Text, primary_key=True),
    Column("bindings", Text, nullable=False),
    Column("declared_at", UtcDateTime, nullable=False),
    Column("heard_at", UtcDateTime, nullable=False),
)

# One row, made with the table. `id` tells two stores apart whatever their URLs are; `recorder` is the one that writes
# here, and `recorder_seen_at` is when it last said so, by its clock, once a minute while it is the active one.
store_mark = Table(
    "limetask_store",
    metadata,
    Column("id", Text, primary_key=True),
    Column("recorder", Text),
    Column("recorder_seen_at", UtcDateTime),
)
