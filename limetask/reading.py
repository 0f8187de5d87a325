"""How a task's status is found: in the store, in what was heard, or in the id. The same for both clients."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from limetask import ids
from limetask.errors import NotFoundError, StoreError, WaitTimeoutError
from limetask.settings import Settings
from limetask.status import Status, StatusReader, TaskStatus

if TYPE_CHECKING:
    from limetask.store import Store

# `wait` asks the store at intervals that double from the first to the last.
FIRST_POLL_SECONDS = 0.01
LAST_POLL_SECONDS = 0.5


class StatusLookup:
    """Looks tasks up. Thread-safe; its calls block while the store answers.

    `end_of` returns the end of a task that this process has heard of, or None: it may come before the store's, and
    nobody shall see a task go backwards. `reader` is what the statuses are refreshed with.
    """

    def __init__(
        self, settings: Settings, end_of: Callable[[str, str], TaskStatus | None], reader: StatusReader
    ) -> None:
        self._settings = settings
        self._end_of = end_of
        self._reader = reader
        self._lock = threading.Lock()
        self._store: Store | None = None

    def status(self, task_id: str, app: str) -> TaskStatus:
        """Return a task's status; raises NotFoundError and StoreError, see `get_status`."""
        if not ids.belongs_to(task_id, app):
            raise _not_found(task_id, app)
        recorded = self._open_store().read(task_id, app)
        heard = self._end_of(task_id, app)
        if heard is not None and (recorded is None or heard.attempt >= recorded.attempt):
            recorded = recorded if recorded is not None and recorded.is_completed() else heard
        oldest = datetime.now(UTC) - timedelta(days=self._settings.retention_days)
        if recorded is not None and (recorded.finished_at is None or recorded.finished_at >= oldest):
            return self.bound(recorded)
        if recorded is None and ids.sent_at(task_id) >= oldest:
            return pending(task_id, app, self._reader)
        raise _not_found(task_id, app)

    def look(self, status: TaskStatus) -> tuple[TaskStatus, StoreError | None]:
        """Return a newer status, or the same one and why the store cannot be read: the event may still tell."""
        try:
            return self.status(status.id, status.app), None
        except StoreError as exc:
            return status, exc

    def bound(self, status: TaskStatus) -> TaskStatus:
        """Return the status as its user gets it, who can refresh it."""
        return replace(status, _reader=self._reader)

    def close(self) -> None:
        """Close the store. May be called twice."""
        with self._lock:
            store, self._store = self._store, None
        if store is not None:
            store.close()

    def _open_store(self) -> Store:
        from limetask.store import Store  # SQLAlchemy is slow to import, and a process may never read a status

        with self._lock:
            if self._store is None:
                self._store = Store(self._settings.resolved_store_url)
            return self._store


def pending(task_id: str, app: str, reader: StatusReader, task_name: str | None = None) -> TaskStatus:
    """Return the status of a task of which no more is known than its id, or than its sender knows."""
    return TaskStatus(
        task_id, Status.PENDING, task_name=task_name, app=app, sent_at=ids.sent_at(task_id), _reader=reader
    )


def wait_timeout(status: TaskStatus, timeout: float) -> WaitTimeoutError:
    """Return the error for a task that has not ended within `timeout` seconds."""
    return WaitTimeoutError(
        f"task {status.id} is {status.status} after {timeout:g} s of waiting; it goes on: wait again or ask later"
    )


def _not_found(task_id: object, app: str) -> NotFoundError:
    return NotFoundError(
        f"application {app!r} has no task {task_id!r}: the id is wrong, expired or another application's"
    )
