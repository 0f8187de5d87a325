"""Messages that tests send."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from limetask import ErrorInfo, Status
from limetask.message import (
    Begun,
    Completion,
    Started,
    TaskIdentity,
    WorkerLost,
)

LIMIT = 1024 * 1024
NOW = datetime(2026, 11, 20, 10, 5, 24, 134744, tzinfo=UTC)
TASK_ID = "01a1f86a-ff26-85e6-9272-bd3e1ea04304"
IDENTITY = TaskIdentity(TASK_ID, "pkg.tasks.add", "shop", 2, "limetask.reply.abc")
STARTED = Started(TASK_ID, "pkg.tasks.add", "shop", 2, "host.12.a", False, NOW, NOW + timedelta(seconds=1))
SUCCESS = Completion(
    id="event-1",
    task_id=TASK_ID,
    task_name="pkg.tasks.add",
    app="shop",
    status=Status.SUCCESS,
    result={"sum": 3, "of": [1, 2]},
    error=None,
    attempt=2,
    worker="host.12.a",
    sent_at=NOW,
    started_at=NOW + timedelta(seconds=1),
    finished_at=NOW + timedelta(seconds=2),
)
FAILURE = replace(SUCCESS, status=Status.FAILURE, result=None, error=ErrorInfo("ValueError", "no", "Traceback ..."))
LOST = WorkerLost("host.12.a", "killed by SIGKILL", NOW, [Begun(TASK_ID, 1), Begun(TASK_ID, 2, 1.5)])
