"""How a task ends that was not run at all."""

from __future__ import annotations

from datetime import UTC, datetime

from limetask import ids
from limetask.message import Completion, TaskIdentity
from limetask.status import ErrorInfo, Status


def failure_of(identity: TaskIdentity, error: ErrorInfo, worker: str) -> Completion:
    """Return the end of a task whose message `worker` has set aside, which has not started then."""
    return Completion(
        id=ids.new_event_id(),
        task_id=identity.task_id,
        task_name=identity.task_name,
        app=identity.app,
        status=Status.FAILURE,
        result=None,
        error=error,
        attempt=identity.attempt,
        worker=worker,
        sent_at=ids.sent_at(identity.task_id),
        started_at=None,
        finished_at=datetime.now(UTC),
    )
