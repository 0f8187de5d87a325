"""What is told instead of what is larger than the broker takes: it would be published for ever, and never arrive."""

from __future__ import annotations

from dataclasses import replace

from limetask.errors import TooLargeForBrokerError
from limetask.message import Completion
from limetask.status import ErrorInfo, Status

_LONGEST_MESSAGE = 1000


def shorter_end(end: Completion, refused: TooLargeForBrokerError) -> Completion:
    """Return the end that is told instead of one that was refused, a failure that says so.

    It has the id of the one that nobody has got: should both a process and its supervisor tell it, it is one event.
    """
    return replace(end, status=Status.FAILURE, result=None, error=_why(end.error, refused))


def _why(error: ErrorInfo | None, refused: TooLargeForBrokerError) -> ErrorInfo:
    if error is None:
        return ErrorInfo("ResultError", f"how it ended cannot be told with its result: {refused}")
    told = error.message[:_LONGEST_MESSAGE]
    return ErrorInfo(error.type, f"{told}\n[shortened, and without the traceback: {refused}]")
