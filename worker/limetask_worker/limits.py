"""How long a task may run, and how long its process."""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import Iterable
from datetime import UTC, datetime

from limetask.errors import ConfigurationError
from limetask.handlers import HandlerDeclaration
from limetask.registry import TaskDeclaration
from limetask.status import ErrorInfo, Status
from limetask_worker.work import Outcome

# A late task without a limit of its own is cut off before the broker takes its delivery away, and runs it again.
_BEFORE_CONSUMER_TIMEOUT = 0.95
_RUSAGE_BYTES = 1 if sys.platform == "darwin" else 1024


class Limits:
    """Tells when this process should make room for another: `spoilt` or `used_up` is set then, and `reason` says why.

    A spoilt process has a body that does not end. A used-up one has run enough tasks, or taken enough memory.
    """

    def __init__(self, consumer_timeout: float, max_tasks: int | None, max_memory_bytes: int | None) -> None:
        self._consumer_timeout = consumer_timeout
        self._tasks_left = max_tasks
        self._max_memory_bytes = max_memory_bytes
        self.spoilt = asyncio.Event()
        self.used_up = asyncio.Event()
        self.reason = ""

    @property
    def allow_more(self) -> bool:
        """False once this process should make room for another: it must begin nothing more."""
        return not (self.used_up.is_set() or self.spoilt.is_set())

    def check(self, tasks: Iterable[TaskDeclaration]) -> None:
        """Raise ConfigurationError for a late-ack task that may run for as long as the broker waits for its ack."""
        for declaration in tasks:
            limit = declaration.time_limit
            if declaration.acks_late and limit is not None and limit >= self._consumer_timeout:
                raise ConfigurationError(
                    f"late-ack task {declaration.name} may run for {limit:g} s, and the broker takes a delivery away "
                    f"after {self._consumer_timeout:g} s: lower its time_limit, or raise the broker's consumer_timeout "
                    "and LIMETASK_CONSUMER_TIMEOUT with it"
                )

    def time_limit_of(self, declaration: TaskDeclaration) -> float | None:
        """Return after how many seconds a task is cut off."""
        if declaration.time_limit is None and declaration.acks_late:
            return self.longest_hold
        return declaration.time_limit

    @property
    def longest_hold(self) -> float:
        """For how many seconds a delivery may go unacked, so that the broker does not take it away."""
        return self._consumer_timeout * _BEFORE_CONSUMER_TIMEOUT

    def check_handlers(self, handlers: Iterable[HandlerDeclaration]) -> None:
        """Raise ConfigurationError for a limit that is not over before the broker takes the event away."""
        for handler in handlers:
            limits = [limit for limit in (handler.time_limit, handler.soft_time_limit) if limit is not None]
            if limits and max(limits) > self.longest_hold:
                raise ConfigurationError(
                    f"event handler {handler.name} may run for {max(limits):g} s, and it is cut off after "
                    f"{self.longest_hold:g} s, since the broker takes a delivery away after {self._consumer_timeout:g} "
                    "s: lower its time limits, or raise the broker's consumer_timeout and LIMETASK_CONSUMER_TIMEOUT "
                    "with it"
                )

    def process_is_spoilt(self, reason: str) -> None:
        """Ask for another process: in this one a body goes on that nobody waits for."""
        self.reason = reason
        self.spoilt.set()

    def count_ended_task(self) -> None:
        """Ask for another process when this one has run enough tasks, or takes too much memory."""
        if self._tasks_left is not None:
            self._tasks_left -= 1
            if self._tasks_left == 0:
                self._use_up("it has run enough tasks (--max-tasks-per-child)")
        if self._max_memory_bytes is not None and _peak_memory_bytes() > self._max_memory_bytes:
            self._use_up("it takes too much memory (--max-memory-per-child)")

    def _use_up(self, reason: str) -> None:
        if not self.used_up.is_set():
            self.reason = reason
            self.used_up.set()


def time_limit_exceeded(seconds: float) -> Outcome:
    """Return the end of a task that was cut off."""
    return Outcome(Status.FAILURE, None, time_limit_error(seconds), datetime.now(UTC))


def time_limit_error(seconds: float) -> ErrorInfo:
    """Return why a task that was cut off has failed."""
    return ErrorInfo("TimeLimitExceeded", f"it had not ended after {seconds:g} s, its time limit, and was cut off")


def _peak_memory_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RUSAGE_BYTES
