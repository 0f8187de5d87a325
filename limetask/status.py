"""The status of a task, as a client sees it, and the order in which statuses replace each other."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any, Protocol, SupportsFloat, cast

from limetask.errors import LimetaskError, UsageError
from limetask.foreign import shortened
from limetask.other_names import OF_STATUSES, advising


class Status(StrEnum):
    """Where a task is in its life. It compares equal to its name: `status == "SUCCESS"`."""

    PENDING = "PENDING"
    STARTED = "STARTED"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"


class Rank(IntEnum):
    """What may replace what within one attempt: only a higher rank replaces a lower one.

    A worker that looks dead may still report its task's end. That report knows better, so it replaces a
    presumed loss, whichever of the two arrives first. That a message was refused replaces nothing, and gives way to
    whatever is told of the task, of any attempt: anybody may have sent a message that names it.
    """

    REFUSED = 0
    STARTED = 1
    PRESUMED_LOST = 2
    ENDED = 3


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """Why a task failed: the exception's type, its message, and the traceback as text ("" if there is none)."""

    type: str
    message: str
    traceback: str = ""


class StatusReader(Protocol):
    """What a TaskStatus asks for its own newer versions; the client is one."""

    def read(self, task_id: str, app: str) -> TaskStatus: ...

    def wait(self, status: TaskStatus, timeout: float) -> TaskStatus: ...


@advising(OF_STATUSES)
@dataclass(frozen=True, slots=True)
class TaskStatus:
    """What is known of one task at one moment. It never changes: `refresh()` and `wait()` return a new one.

    Times are aware datetimes in UTC, None where it has not come to that. `result` is what the task returned, as
    JSON carries it, or the message of a `TaskFailure`. `error` tells why a task failed. `task_name` is None only
    for a pending task that was looked up by its id. `worker` names the worker process that ran it.
    """

    id: str
    status: Status
    result: Any = None
    error: ErrorInfo | None = None
    task_name: str | None = None
    app: str = ""
    attempt: int = 1
    worker: str | None = None
    sent_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    _reader: StatusReader | None = field(default=None, repr=False, compare=False)

    def is_completed(self) -> bool:
        """Return True if the task has ended, with SUCCESS or with FAILURE."""
        return self.status in (Status.SUCCESS, Status.FAILURE)

    def to_dict(self) -> dict[str, Any]:
        """Return exactly `id`, `status` and `result`: what a web client is to see."""
        return {"id": self.id, "status": self.status.value, "result": self.result}

    def refresh(self) -> TaskStatus:
        """Read the task's status anew.

        Raises NotFoundError if the task has expired and StoreError if the store cannot be read.
        """
        return self._bound_reader().read(self.id, self.app)

    def wait(self, timeout: float) -> TaskStatus:
        """Wait until the task has ended, `timeout` seconds at most, and return its last status.

        The end is known as soon as its event arrives, often just before the store has it. Safe in any thread.
        Raises WaitTimeoutError (a TimeoutError) if the task has not ended in time, NotFoundError if it has expired,
        StoreError if the store could not be read until the end, and UsageError for a timeout that is no number.
        """
        limit = seconds(timeout)
        return self if self.is_completed() else self._bound_reader().wait(self, limit)

    def _bound_reader(self) -> StatusReader:
        if self._reader is None:
            raise LimetaskError(
                "this TaskStatus was made by hand and cannot be refreshed: use limetask.get_status(id, app)"
            )
        return self._reader


def seconds(timeout: object) -> float:
    """Return a timeout in seconds; raises UsageError for what is no number."""
    number = _float_of(timeout)
    if math.isnan(number):
        raise UsageError(
            f"to wait needs a timeout, a number of seconds such as 30, and not {_shown(timeout)}: a task without a "
            "worker never ends. To wait for however long it takes, say float('inf')"
        )
    return number


def _float_of(value: object) -> float:
    """Return a number as a float, NaN for what is none or is too large for one."""
    if isinstance(value, bool) or not hasattr(type(value), "__float__"):  # SupportsFloat asks the same, and slowly
        return math.nan
    try:
        return float(cast(SupportsFloat, value))
    except Exception:  # noqa: BLE001 - such as of Decimal("sNaN") and 10**400, or of the value's own code
        return math.nan


def _shown(value: object) -> str:
    # Python refuses to write a whole number of thousands of digits.
    return "a number that large" if isinstance(value, int) and not isinstance(value, bool) else shortened(value)
