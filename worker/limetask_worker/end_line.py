"""The log line of a task's end."""

from __future__ import annotations

import logging

from limetask.status import Status
from limetask_worker.log_thread import WORK_FIELD
from limetask_worker.logs import DURATION_FIELD
from limetask_worker.work import Outcome, Work

logger = logging.getLogger(__name__)

_WARN_RESULT_BYTES = 64 * 1024


def log_end(work: Work, outcome: Outcome) -> None:
    """Say how a task has ended: with its exception, so that logging handlers which report errors see it.

    They see it in the body's own context, with what the body has set there. A TaskFailure was raised on purpose: it is
    a warning, all other failures are errors.
    """
    size = len(outcome.result or b"")
    if size > _WARN_RESULT_BYTES:
        logger.warning(
            "the result takes %d bytes: a result is a summary, keep the data where it belongs",
            size,
            extra={WORK_FIELD: work},
        )
    level = _level_of(outcome)
    if logger.isEnabledFor(level):
        if outcome.context is None:
            _log(level, work, outcome)
        else:
            outcome.context.run(_log, level, work, outcome)


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
