"""What a connection learns from the broker's refusal of a message that is too large."""

from __future__ import annotations

import pytest

from limetask import ConnectionLostError, TooLargeForBrokerError, clock
from limetask.amqp.size_limit import SizeLimit, SizeRefusedError, fate_of, size_refusal
from limetask.message import Envelope

# As brokers have sent them; the second is of one whose limit is the highest that RabbitMQ allows.
TEXTS = {
    "PRECONDITION_FAILED - message size 20971530 is larger than configured max size 16777216": 16_777_216,
    "PRECONDITION_FAILED - message size 536870913 is larger than max size 536870912": 536_870_912,
}


def refused(limit: int = 100) -> SizeRefusedError:
    error = size_refusal(f"PRECONDITION_FAILED - message size {limit + 1} is larger than configured max size {limit}")
    assert error is not None
    return error


def of_size(size: int) -> Envelope:
    return Envelope(b"x" * size, None)


@pytest.mark.parametrize("text", TEXTS)
def test_the_limit_is_read_from_the_brokers_words(text: str) -> None:
    """Both wordings tell it, and our error says what to do, with the broker's words at its end."""
    error = size_refusal(text)
    assert error is not None
    assert error.limit == TEXTS[text]
    assert f"larger than the broker takes, {TEXTS[text]:,} bytes" in str(error)
    assert "max_message_size" in str(error)
    assert str(error).endswith(f"(the broker refused: {text})")


def test_another_refusal_is_not_about_a_size() -> None:
    """It leaves the limit unknown."""
    assert size_refusal("PRECONDITION_FAILED - unknown delivery tag 5") is None


@pytest.mark.parametrize(("size", "is_refused"), [(100, False), (101, True)])
def test_only_what_is_larger_is_refused(size: int, is_refused: bool) -> None:
    """Of all that the broker had not confirmed, the others may be there or not."""
    fate = fate_of(of_size(size), refused())
    assert isinstance(fate, TooLargeForBrokerError) == is_refused
    assert isinstance(fate, ConnectionLostError) == (not is_refused)


def test_a_limit_is_known_from_its_first_refusal_on() -> None:
    """What is larger is refused before it is published, with both sizes; the rest is not."""
    limit = SizeLimit()
    assert limit.refusal_of(of_size(101)) is None
    limit.note_end(refused())
    assert limit.refusal_of(of_size(100)) is None
    assert "101 bytes is larger than the broker takes, 100 bytes" in str(limit.refusal_of(of_size(101)))


def test_a_limit_is_forgotten_with_the_broker_that_had_it() -> None:
    """A connection that ends for another reason may find another limit when it is back."""
    limit = SizeLimit()
    limit.note_end(refused())
    limit.note_end(ConnectionLostError("the broker has been started again"))
    assert limit.refusal_of(of_size(101)) is None


def test_a_limit_is_tried_anew_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been raised while the broker runs."""
    limit = SizeLimit()
    limit.note_end(refused())
    later = clock.now() + 61
    monkeypatch.setattr(clock, "now", lambda: later)
    assert limit.refusal_of(of_size(101)) is None
