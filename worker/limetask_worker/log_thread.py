"""Which loggers of a worker write by `limetask.log_thread`, and what their waiting lines keep of a task."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from limetask.log_thread import HandedOver, OwnLogger, hand_over, log_as_worker
from limetask.log_thread import log_thread as log_thread  # for all who import it from here
from limetask_worker.work import Work

# Fields of a log record that no user's `extra` will have by chance.
WORK_FIELD = "limetask_work"
IDENTITY_FIELD = "limetask_identity"

# Whose lines are handed over: what logs on a loop of limetask's. Only limetask's own cannot be disabled.
_KINDS: dict[str, type[HandedOver]] = {
    "limetask": OwnLogger,
    "limetask_worker": OwnLogger,
    "pika": HandedOver,
    "asyncio": HandedOver,
}


def hand_over_lines() -> None:
    """Have the lines of all loggers that limetask and its libraries have made so far handed to `log_thread`.

    Those that the client makes later are so from the first.
    """
    log_as_worker(_light)
    for name, made in list(logging.Logger.manager.loggerDict.items()):
        kind = _KINDS.get(name.partition(".")[0])
        if isinstance(made, logging.Logger) and kind is not None:
            hand_over(made, kind)


def _light(extra: Mapping[str, object] | None) -> dict[str, object]:
    """Return a line's fields without the task's message, which would be kept as long as the line waits."""
    fields = dict(extra or {})
    work = fields.pop(WORK_FIELD, None)
    if isinstance(work, Work):
        fields[IDENTITY_FIELD] = work.message.identity
    return fields
