"""The largest message that the broker takes: it tells nobody before it has refused one, and closes the channel then.

What counts is the body alone, without headers, in RabbitMQ 3.10 and 4.0.
"""

from __future__ import annotations

import re

from limetask import clock
from limetask.errors import BrokerError, ConnectionLostError, TooLargeForBrokerError
from limetask.message import Envelope

# "configured" is left out by a broker whose limit is the highest that there can be.
_REFUSAL = re.compile(r"message size (?P<size>\d+) is larger than (?:configured )?max size (?P<limit>\d+)")
# Somebody may raise the limit without a restart of the broker, which would end the connection.
_BELIEVED_SECONDS = 60.0
_ANY = float("inf")


class SizeRefusedError(ConnectionLostError):
    """The channel was closed since one message, which may be another's, has more bytes than `limit`."""

    def __init__(self, message: str, limit: int) -> None:
        super().__init__(message)
        self.limit = limit


class SizeLimit:
    """What a connection has learnt of the largest message that its broker takes.

    So the same refusal does not close it again and again under all others who publish there. It is forgotten when the
    connection ends for another reason or cannot be opened, as when the broker starts again with another limit, and
    after a minute.
    """

    def __init__(self) -> None:
        self._bytes: float = _ANY
        self._learnt_at = 0.0

    def note_end(self, error: BrokerError) -> None:
        """Learn from what a connection has ended with, or could not be opened for."""
        self._bytes = error.limit if isinstance(error, SizeRefusedError) else _ANY
        self._learnt_at = clock.now()

    def refusal_of(self, envelope: Envelope) -> TooLargeForBrokerError | None:
        """Return the error for a message that the broker is known not to take."""
        if len(envelope.body) <= self._bytes:
            return None
        if clock.now() > self._learnt_at + _BELIEVED_SECONDS:
            self._bytes = _ANY
            return None
        return TooLargeForBrokerError(tell_too_large(len(envelope.body), int(self._bytes)))


def size_refusal(reply_text: str) -> SizeRefusedError | None:
    """Return the error for a channel that the broker has closed with this text, None if it is not about a size."""
    said = _REFUSAL.search(reply_text)
    if said is None:
        return None
    size, limit = int(said["size"]), int(said["limit"])
    return SizeRefusedError(f"{tell_too_large(size, limit)} (the broker refused: {reply_text})", limit)


def fate_of(envelope: Envelope, closed: SizeRefusedError) -> BrokerError:
    """Return what became of a publish when its channel was closed like this, by whatever message.

    The refused one is among those that are larger than the limit. The others of these came after it, so the broker has
    not got them either, and would have refused them.
    """
    if len(envelope.body) > closed.limit:
        return TooLargeForBrokerError(tell_too_large(len(envelope.body), closed.limit))
    return SizeRefusedError(f"closed before the broker confirmed: {closed}", closed.limit)


def tell_too_large(size: int, limit: int) -> str:
    """Return in our words that a message of `size` bytes was refused, and what to do."""
    return (
        f"a message of {size:,} bytes is larger than the broker takes, {limit:,} bytes: send less and keep the data "
        "where it belongs, or raise max_message_size in rabbitmq.conf. LIMETASK_MAX_ARGUMENTS_BYTES and "
        "LIMETASK_MAX_RESULT_BYTES below that have it said sooner"
    )
