"""What clients of AMQP 1.0 send, as RabbitMQ hands it on."""

from __future__ import annotations

import json
import struct

import pytest

from limetask import MessageRefusedError
from limetask.arguments import encode_arguments
from limetask.codec import decode_task, encode_task
from limetask.events import decode_event
from limetask.message import Envelope
from tests.unit.messages import IDENTITY, LIMIT

EVENT = json.dumps({"id": "one", "routing_key": "shop.paid", "app": "acme", "body": {"ä": 1}}).encode()
SECTION = b"\x00\x53\x77"


def envelope(body: bytes) -> Envelope:
    return Envelope(body, None, kind="amqp-1.0")


@pytest.mark.parametrize(
    "value",
    [
        b"\xa1" + bytes([len(EVENT)]) + EVENT,
        b"\xb1" + struct.pack(">I", len(EVENT)) + EVENT,
        b"\xa0" + bytes([len(EVENT)]) + EVENT,
        b"\xb0" + struct.pack(">I", len(EVENT)) + EVENT,
    ],
)
def test_an_event_may_be_text_or_bytes(value: bytes) -> None:
    """A value section with the event as text, short or long, or as bytes."""
    assert decode_event(envelope(SECTION + value)).body == {"ä": 1}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        SECTION,
        SECTION + b"\xa1",
        SECTION + b"\xb1\x00",
        SECTION + b"\xa1\x05abc",
        SECTION + b"\xa1\x02{}" + SECTION,
        SECTION + b"\x54\x01",
        b"\x00\x53\x76\xc0\x02\x00",
        EVENT,
    ],
)
def test_any_other_value_is_refused_with_advice(body: bytes) -> None:
    """A number, a list, or what is cut off."""
    with pytest.raises(MessageRefusedError, match="send it as a data section"):
        decode_event(envelope(body))


def test_a_task_is_data() -> None:
    """msgpack is no text, so there is nothing to be made of a value."""
    task = encode_task(IDENTITY, encode_arguments([], {}, LIMIT))
    with pytest.raises(MessageRefusedError, match="msgpack as a data section"):
        decode_task(IDENTITY, Envelope(task.body, task.content_type, kind="amqp-1.0", headers=task.headers))
