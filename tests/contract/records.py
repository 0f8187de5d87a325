"""Records of tasks as workers tell them, and what a client is to read after them."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, create_engine, text

from limetask import ids
from limetask.message import Completion, Started
from limetask.status import ErrorInfo, Rank, Status, TaskStatus
from limetask.store_url import parse_store_url

SENT = datetime(2026, 3, 29, 0, 59, 59, 123456, tzinfo=UTC)
STARTED = SENT + timedelta(seconds=1, microseconds=1)
FINISHED = STARTED + timedelta(minutes=5)
LOST = ErrorInfo("WorkerLost", "the worker process was killed")

Record = Started | Completion


def started(task_id: str, **changes: Any) -> Started:
    record = Started(task_id, "pkg.tasks.add", "shop", 1, "host:12:a", False, SENT, STARTED)
    return replace(record, **changes)


def ended(task_id: str, **changes: Any) -> Completion:
    return replace(
        Completion(
            id="event",
            task_id=task_id,
            task_name="pkg.tasks.add",
            app="shop",
            status=Status.SUCCESS,
            result={"sum": 3},
            error=None,
            attempt=1,
            worker="host:12:a",
            sent_at=SENT,
            started_at=STARTED,
            finished_at=FINISHED,
        ),
        **changes,
    )


def failed(task_id: str, **changes: Any) -> Completion:
    failure = {"status": Status.FAILURE, "result": None, "error": ErrorInfo("ValueError", "no", "Traceback")}
    return ended(task_id, **(failure | changes))


def refused(task_id: str, **changes: Any) -> Completion:
    refusal = {"error": ErrorInfo("MessageRefusedError", "the body is not valid msgpack"), "started_at": None}
    return failed(task_id, **(refusal | changes))


def status_of(record: Record) -> TaskStatus:
    """What a client is to read after this record."""
    status = TaskStatus(
        id=record.task_id,
        status=Status.STARTED,
        task_name=record.task_name,
        app=record.app,
        attempt=record.attempt,
        worker=record.worker,
        sent_at=record.sent_at,
        started_at=record.started_at,
    )
    if isinstance(record, Started):
        return status
    return replace(
        status,
        status=record.status,
        result=record.result,
        error=record.error,
        finished_at=record.finished_at,
    )


def winner(records: Sequence[Record]) -> Record:
    """The record that the row shows in the end: the most advanced one, the first of equals."""
    return max(records, key=position)


def position(record: Record) -> tuple[int, Rank]:
    if isinstance(record, Started):
        return record.attempt, Rank.STARTED
    return record.attempt, Rank.PRESUMED_LOST if record.error == LOST else Rank.ENDED


def new_id(sent: datetime = SENT) -> str:
    return ids.new_task_id("shop", sent.timestamp())


def random_text(length: int) -> str:
    """Text that cannot be compressed: what is too long for an index is so only then."""
    return "".join(random.Random(1).choices(string.printable, k=length))


@contextmanager
def engine_of(url: str) -> Iterator[Engine]:
    engine = create_engine(parse_store_url(url))
    try:
        yield engine
    finally:
        engine.dispose()


def execute(url: str, statement: str) -> None:
    with engine_of(url) as engine, engine.begin() as connection:
        connection.execute(text(statement))
