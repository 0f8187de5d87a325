"""How a task's status is found: in the store, in what was heard, or in the id. The same for both clients."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from limetask import ids
from limetask.errors import NotFoundError, StoreError, UnusableHereError, UsageError, WaitTimeoutError
from limetask.foreign import shortened
from limetask.log_thread import own_logger
from limetask.once import Once
from limetask.settings import Settings
from limetask.status import Status, StatusReader, TaskStatus

if TYPE_CHECKING:
    from limetask.store import Store

logger = own_logger(__name__)

# `wait` asks the store at intervals that double from the first to the last.
FIRST_POLL_SECONDS = 0.01
LAST_POLL_SECONDS = 0.5
# The end of a task that was sent so lately comes by itself, and to look meanwhile would only slow it down.
_JUST_SENT = timedelta(milliseconds=50)

_DOUBT_AFTER_SECONDS = 10.0
_DOUBT_EVERY_SECONDS = 60.0


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
        self._store = Once(self._open_store, lambda store: store.close())
        self._readers: set[int] = set()
        self._next_doubt = float("-inf")

    def status_of_any(self, task_id: str | uuid.UUID, app: str) -> TaskStatus:
        """Return a task's status, with its id in whatever form a user has it."""
        if not isinstance(task_id, str | uuid.UUID):
            own_id = ", which has it as its `id`" if isinstance(task_id, TaskStatus) else ""
            raise _not_found(task_id, app, f"an id is text, not {type(task_id).__name__}{own_id}")
        return self.status(ids.canonical(task_id) or str(task_id), app)

    def status(self, task_id: str, app: str) -> TaskStatus:
        """Return a task's status; raises NotFoundError and StoreError, see `get_status`."""
        if not ids.belongs_to(task_id, app):
            raise _not_found(task_id, app)
        with self._reading() as store:
            recorded = store.read(task_id, app)
        heard = self._end_of(task_id, app)
        if heard is not None and (recorded is None or heard.attempt >= recorded.attempt):
            recorded = recorded if recorded is not None and recorded.is_completed() else heard
        oldest = datetime.now(UTC) - timedelta(days=self._settings.retention_days)
        if recorded is not None and (recorded.finished_at is None or recorded.finished_at >= oldest):
            return self.bound(recorded)
        if recorded is None and ids.sent_at(task_id) >= oldest:
            self._say_if_in_doubt(task_id)
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

    def _say_if_in_doubt(self, task_id: str) -> None:
        """Say that a task may not be pending at all, if nobody writes into this store: it may be the wrong one.

        Looked at now and then, and only for a task that has waited for longer than most: the others cost nothing.
        """
        age = datetime.now(UTC) - ids.sent_at(task_id)
        if age.total_seconds() < _DOUBT_AFTER_SECONDS or time.monotonic() < self._next_doubt:
            return
        self._next_doubt = time.monotonic() + _DOUBT_EVERY_SECONDS
        with contextlib.suppress(StoreError), self._reading() as store:
            if doubt := store.doubt():
                logger.warning(
                    "task %s is PENDING as far as the status store %s tells, but %s. Start a worker with the recorder "
                    "there, or give this program the LIMETASK_STORE_URL of the workers: `limetask doctor` tells more",
                    task_id,
                    store.shown,
                    doubt,
                )

    def close(self) -> None:
        """Close the store. May be called twice."""
        store = self._store.take()
        if store is not None:
            store.close()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Store]:
        # A signal handler, or a finalizer, may have interrupted this thread anywhere in here, where imports and
        # SQLAlchemy take locks that it would wait for in vain.
        reader = threading.get_ident()
        if reader in self._readers:
            raise UnusableHereError(
                "a signal handler or a `__del__` asks for a task's status while the code that it has interrupted does: "
                "have the handler note what there is to do, and do it later"
            )
        self._readers.add(reader)
        try:
            yield self._store.get()
        finally:
            self._readers.discard(reader)

    def _open_store(self) -> Store:
        from limetask.store import Store  # SQLAlchemy is slow to import, and a process may never read a status

        return Store(self._settings.resolved_store_url)


def pending(task_id: str, app: str, reader: StatusReader, task_name: str | None = None) -> TaskStatus:
    """Return the status of a task of which no more is known than its id, or than its sender knows."""
    return TaskStatus(
        task_id, Status.PENDING, task_name=task_name, app=app, sent_at=ids.sent_at(task_id), _reader=reader
    )


def wait_timeout(status: TaskStatus, timeout: float) -> WaitTimeoutError:
    """Return the error for a task that has not ended within `timeout` seconds."""
    return WaitTimeoutError(
        f"task {status.id} is {status.status} after {timeout:g} s of waiting; it goes on: wait again or ask later",
        [status],
    )


def wait_all_timeout(statuses: Sequence[TaskStatus], timeout: float) -> WaitTimeoutError:
    """Return the error for tasks of which some have not ended within `timeout` seconds."""
    unfinished = [status for status in statuses if not status.is_completed()]
    return WaitTimeoutError(
        f"{len(unfinished)} of {len(statuses)} tasks have not ended after {timeout:g} s of waiting, such as "
        f"{unfinished[0].id}, which is {unfinished[0].status}; they go on: wait again or ask later",
        statuses,
    )


def checked_statuses(statuses: Iterable[TaskStatus]) -> list[TaskStatus]:
    """Return statuses as a list; raises UsageError for anything else."""
    if isinstance(statuses, TaskStatus) or not isinstance(statuses, Iterable):
        raise UsageError(f"wait_all takes a list of statuses, as send_tasks returns it, and not {shortened(statuses)}")
    listed = list(statuses)
    for status in listed:
        if not isinstance(status, TaskStatus):
            raise UsageError(
                f"only statuses are waited for, as send_task and get_status return them, and not {shortened(status)}"
            )
    return listed


def _not_found(task_id: object, app: str, reason: str = "") -> NotFoundError:
    if ids.canonical(app) and not ids.canonical(task_id):
        reason = "the task's id comes first, and then the application"
    return NotFoundError(
        f"application {app!r} has no task {shortened(task_id)}: "
        + (reason or "the id is wrong, expired or another application's")
    )


def is_just_sent(status: TaskStatus) -> bool:
    """Return True for a task that has hardly had the time to end."""
    return datetime.now(UTC) - ids.sent_at(status.id) < _JUST_SENT
