"""One delivered task on its way through a task process."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from limetask.amqp import Delivery
from limetask.message import TaskMessage
from limetask.registry import TaskDeclaration
from limetask.status import ErrorInfo, Status

if TYPE_CHECKING:
    import orjson


@dataclass(slots=True)
class Work:
    """A task that may run here, its delivery, and when it was started."""

    delivery: Delivery
    message: TaskMessage
    declaration: TaskDeclaration
    started_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended. `refusal` is set if it was not run at all and is to be dead-lettered for that reason."""

    status: Status
    result: orjson.Fragment | Any
    error: ErrorInfo | None
    finished_at: datetime
    refusal: str | None = None
