"""One delivered task on its way through a task process."""

from __future__ import annotations

import asyncio
import contextvars
import time
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType

from limetask import ids
from limetask.amqp import Delivery
from limetask.message import TaskMessage
from limetask.registry import TaskDeclaration
from limetask.status import ErrorInfo, Status
from limetask.value import value
from limetask_worker.marks import Mark

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


@dataclass(slots=True)
class Work:
    """A task that may run here, its delivery, and when it was started.

    `begun` is how often its body has begun, this time included, if the recorder has said so; that was at `granted_at`,
    by time.monotonic. `mark` tells the supervisor of it, from when it is taken in hand. `copies` are further deliveries
    of the same attempt, which was sent twice. `time_limit` is in seconds; `cut_off_timer` enforces it. `is_settled` is
    true once its delivery is acked or given back. `body_seconds` is how long the body took, if it ran in this process.
    `key` is which attempt at which task it is; `sent_at` is when that was sent, as its id tells.
    """

    delivery: Delivery
    message: TaskMessage
    declaration: TaskDeclaration
    started_at: datetime | None = None
    begun: int | None = None
    granted_at: float = 0.0
    copies: list[Delivery] = field(default_factory=list)
    received_at: float = field(default_factory=time.monotonic)
    body_seconds: float | None = None
    has_ended: bool = False
    is_settled: bool = False
    is_cut_off: bool = False
    time_limit: float | None = None
    cut_off_timer: asyncio.TimerHandle | None = None
    mark: Mark = field(init=False)
    key: tuple[str, int] = field(init=False)
    sent_at: datetime = field(init=False)

    def __post_init__(self) -> None:
        identity = self.message.identity
        self.key = identity.task_id, identity.attempt
        self.sent_at = ids.sent_at(identity.task_id)

    @property
    def age(self) -> float:
        """For how many seconds it has been here."""
        return time.monotonic() - self.received_at


@value
class Outcome:
    """How a task ended. `result` is JSON, or None for none.

    `refusal` is set if the body was not run at all, and is the reason for which the message is to be dead-lettered.
    `exc_info` and `context` are for the log: what was raised in this process, and the body's context variables.
    """

    status: Status
    result: bytes | None
    error: ErrorInfo | None
    finished_at: datetime
    refusal: str | None = None
    exc_info: ExcInfo | None = None
    context: contextvars.Context | None = None
