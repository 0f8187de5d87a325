"""Loggers that never raise: for code that must go on whatever a user's logging handler does."""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Any

from limetask.log_thread import own_logger


class CarefulLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose handlers' exceptions are printed, as `logging.Handler.handleError` does, and not raised.

    A handler that raises would otherwise end the task that keeps a connection open.
    """

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log, in the caller's name."""
        try:
            super().log(level, msg, *args, **{"stacklevel": 2, **kwargs})
        except Exception:  # noqa: BLE001 - it is the handler's, whatever it is
            if logging.raiseExceptions and sys.stderr is not None:
                traceback.print_exc()


def careful_logger(name: str) -> CarefulLogger:
    """Return a careful logger of that name."""
    return CarefulLogger(own_logger(name))
