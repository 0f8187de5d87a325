"""What is told instead of what is larger than the broker takes: it would be published for ever, and never arrive."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from limetask.amqp import Delivery
from limetask.codec import encode_dead_letter
from limetask.errors import TooLargeForBrokerError
from limetask.message import Completion, Envelope
from limetask.status import ErrorInfo, Status

_LONGEST_MESSAGE = 1000


def shorter_end(end: Completion, refused: TooLargeForBrokerError) -> Completion:
    """Return the end that is told instead of one that was refused, a failure that says so.

    It has the id of the one that nobody has got: should both a process and its supervisor tell it, it is one event.
    """
    return replace(end, status=Status.FAILURE, result=None, error=_why(end.error, refused))


def dead_letter_of_headers(delivery: Delivery, reason: str) -> Envelope:
    """Return the dead letter of a message that can be set aside without its body alone.

    It has no content type, so that nobody takes it for a task without arguments and tries it again.
    """
    size = len(delivery.envelope.body)
    headers = replace(delivery.envelope, body=b"", content_type=None)
    told = f"(its body is left out: the broker does not take its {size:,} bytes any more) {reason}"
    return encode_dead_letter(headers, delivery.queue, told, datetime.now(UTC))


def _why(error: ErrorInfo | None, refused: TooLargeForBrokerError) -> ErrorInfo:
    if error is None:
        return ErrorInfo("ResultError", f"how it ended cannot be told with its result: {refused}")
    told = error.message[:_LONGEST_MESSAGE]
    return ErrorInfo(error.type, f"{told}\n[shortened, and without the traceback: {refused}]")
