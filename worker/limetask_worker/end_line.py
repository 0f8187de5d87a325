"""The log lines of tasks' ends."""

from __future__ import annotations

import asyncio
import logging

from limetask.status import Status
from limetask_worker.log_thread import WORK_FIELD
from limetask_worker.logs import DURATION_FIELD
from limetask_worker.work import Outcome, Work

logger = logging.getLogger(__name__)

_WARN_RESULT_BYTES = 64 * 1024


class EndLines:
    """Logs ends once this turn of the loop has sent them to the broker: whoever waits for a task need not wait for it.

    Of one asyncio loop.
    """

    def __init__(self) -> None:
        self._ended: list[tuple[Work, Outcome]] = []

    def add(self, work: Work, outcome: Outcome) -> None:
        """Log this end soon. Call it when the end has been published."""
        if not self._ended:
            asyncio.get_running_loop().call_soon(self._log)
        self._ended.append((work, outcome))

    def _log(self) -> None:
        ended, self._ended = self._ended, []
        logs_success = logger.isEnabledFor(logging.INFO)  # asked once: most are such, and few want a line for each
        for work, outcome in ended:
            if logs_success or outcome.status is not Status.SUCCESS or _has_large_result(outcome):
                log_end(work, outcome)


def log_end(work: Work, outcome: Outcome) -> None:
    """Say how a task has ended: with its exception, so that logging handlers which report errors see it.

    They see it in the body's own context, with what the body has set there. A TaskFailure was raised on purpose: it is
    a warning, all other failures are errors.
    """
    if _has_large_result(outcome):
        logger.warning(
            "the result takes %d bytes: a result is a summary, keep the data where it belongs",
            len(outcome.result or b""),
            extra={WORK_FIELD: work},
        )
    level = _level_of(outcome)
    if logger.isEnabledFor(level):
        if outcome.context is None:
            _log(level, work, outcome)
        else:
            outcome.context.run(_log, level, work, outcome)


def _has_large_result(outcome: Outcome) -> bool:
    return outcome.result is not None and len(outcome.result) > _WARN_RESULT_BYTES


def _log(level: int, work: Work, outcome: Outcome) -> None:
    error = outcome.error
    text = ("succeeded",) if error is None else ("failed: %s: %s", error.type, error.message)
    started_at = work.started_at or outcome.finished_at
    duration = (outcome.finished_at - started_at).total_seconds()
    logger.log(level, *text, exc_info=outcome.exc_info, extra={WORK_FIELD: work, DURATION_FIELD: duration})


def _level_of(outcome: Outcome) -> int:
    if outcome.status is Status.SUCCESS:
        return logging.INFO
    return logging.WARNING if outcome.error is not None and outcome.error.type == "TaskFailure" else logging.ERROR
