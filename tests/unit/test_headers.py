"""Headers of every type and every depth: read without an error, and told where something was left out."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pamqp import decode as pamqp_decode
from pika import BasicProperties, data

from limetask import MessageRefusedError, aio
from limetask.amqp.frames import decode_header, encode_publish
from limetask.amqp.headers import MAX_NESTING, decode_table
from limetask.codec import decode_identity, encode_dead_letter, encode_task, fitting_dead_letter
from limetask.events import decode_event
from limetask.message import Envelope, UnreadableHeaders
from tests.strange import WIDTHS, array, deep_array, deep_table, field, inner_table, long_text, strange_fields, table
from tests.unit.messages import IDENTITY, NOW

assert aio  # which has pamqp read headers as we do


def encoded(fields: bytes) -> bytes:
    return struct.pack(">I", len(fields)) + fields


def by_frames(fields: bytes) -> Any:
    """As a delivery's headers are read, and nothing of what follows them."""
    flags = 1 << 15 | 1 << 13
    header = struct.pack(">HHQH", 60, 0, 0, flags) + b"\x03a/b" + encoded(fields)
    _, (content_type, headers, *_) = decode_header(header, 0, len(header))
    assert content_type == "a/b"
    return headers


def by_pika(fields: bytes) -> Any:
    """As pika reads the headers of what a slot takes by itself."""
    properties = BasicProperties()
    properties.decode(struct.pack(">H", 1 << 13) + encoded(fields))
    return properties.headers


def by_pamqp(fields: bytes) -> Any:
    """As the asyncio client reads headers."""
    consumed, headers = pamqp_decode.by_type(encoded(fields), "table")
    assert consumed == len(encoded(fields))
    return headers


READERS = pytest.mark.parametrize("read", [by_frames, by_pika, by_pamqp])
Read = Callable[[bytes], Any]


@READERS
@pytest.mark.parametrize("width", WIDTHS)
def test_numbers_of_every_width_are_plain_ones(read: Read, width: str) -> None:
    """A task's attempt may be sent in any of them: by Go and Java with 64 bits."""
    own = [(name, field(value)) for name, value in (encode_task(IDENTITY, b"").headers or {}).items()]
    own[-1] = ("attempt", WIDTHS[width](7))
    headers = read(table(own))
    assert type(headers["attempt"]) is int
    assert decode_identity(Envelope(b"", None, headers=headers)).attempt == 7


@READERS
def test_texts_may_be_sent_as_bytes(read: Read) -> None:
    """Some clients do; what is no UTF-8 is no text."""
    own = [(name, field(value)) for name, value in (encode_task(IDENTITY, b"").headers or {}).items()]
    as_bytes = [(name, long_text(IDENTITY.app, b"x") if name == "app" else value) for name, value in own]
    assert decode_identity(Envelope(b"", None, headers=read(table(as_bytes)))).app == IDENTITY.app


@READERS
def test_every_other_type_is_read(read: Read) -> None:
    values: dict[str, tuple[bytes, Any]] = {
        "true": (b"t\x01", True),
        "double": (b"d" + struct.pack(">d", 1.5), 1.5),
        "float": (b"f" + struct.pack(">f", -0.5), -0.5),
        "decimal": (b"D" + struct.pack(">Bi", 2, -314), Decimal("-3.14")),
        "moment": (b"T" + struct.pack(">Q", 1_700_000_000), datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        "far future": (b"T" + struct.pack(">Q", 2**60), None),
        "nothing": (b"V", None),
        "no UTF-8": (long_text(b"\xff"), b"\xff"),
        "bytes": (long_text(b"abc", b"x"), b"abc"),
        "array": (array([b"V", WIDTHS["l"](3), array([])]), [None, 3, []]),
        "table": (inner_table([("a", b"t\x00"), (b"\xff", long_text("b"))]), {"a": False, b"\xff": "b"}),
    }
    fields = table((name, value) for name, (value, _) in values.items())
    assert read(fields) == {name: expected for name, (_, expected) in values.items()}
    assert type(read(fields)) is dict


@READERS
@pytest.mark.parametrize("deep", [deep_array, deep_table])
def test_what_is_nested_too_deeply_is_left_out(read: Read, deep: Callable[[int], bytes]) -> None:
    """Everything beside it is kept, and whoever decides about the message is told."""
    fields = [("before", field(1)), ("deep", deep(MAX_NESTING + 1)), ("after", field("kept"))]
    headers = read(table(fields))
    assert isinstance(headers, UnreadableHeaders)
    assert (headers["before"], headers["after"]) == (1, "kept")
    assert headers["deep"].startswith("(left out: ")
    assert headers.reason == f"header 'deep' is nested more than {MAX_NESTING} levels deep"
    assert type(read(table([("deep", deep(MAX_NESTING))]))) is dict
    assert isinstance(read(table([("deep", deep(20_000))])), UnreadableHeaders)


@READERS
def test_a_type_that_nobody_knows_is_left_out_with_what_follows(read: Read) -> None:
    headers = read(table([("before", field(1)), ("odd", b"?abc"), ("after", field(2))]))
    assert isinstance(headers, UnreadableHeaders)
    assert headers == {"before": 1}
    assert "unknown type '?'" in headers.reason
    headers = read(table([("odd", array([b"?"])), ("after", field(2))]))
    assert headers["after"] == 2
    assert "header 'odd' has a value of the unknown type '?'" in headers.reason


@READERS
def test_whatever_is_cut_off_raises_nothing(read: Read) -> None:
    """Lengths that lie, at every place: something is read, and the headers end where they say."""
    whole = table([("a", field("text")), ("b", array([field(2**40), inner_table([("c", b"V")])])), ("d", b"V")])
    for end in range(len(whole)):
        assert len(read(whole[:end])) <= 3


@pytest.mark.parametrize("seed", range(200))
def test_all_read_the_same(seed: int) -> None:
    """Generated headers are the same to all, and a dead letter of them can be published, in any frame."""
    fields = table(strange_fields(random.Random(seed)))
    headers = by_frames(fields)
    assert by_pika(fields) == by_pamqp(fields) == headers == decode_table(encoded(fields), 0)[0]
    letter = encode_dead_letter(Envelope(b"body", "a/b", headers=headers), "queue", "reason", NOW)
    publish(letter, 131_072)
    publish(fitting_dead_letter(letter, 4096), 4096)


def publish(envelope: Envelope, frame_bytes: int) -> None:
    """Encode a message; each of its frames must be as short as the broker wants it."""
    frames = encode_publish(1, "exchange", "", envelope, None, mandatory=True, frame_bytes=frame_bytes)
    while frames:
        end = 8 + struct.unpack_from(">BHI", frames)[2]
        assert end <= frame_bytes
        frames = frames[end:]


@pytest.mark.parametrize("decode", [decode_identity, decode_event])
def test_a_message_that_could_not_be_read_in_full_is_refused(decode: Callable[[Envelope], Any]) -> None:
    """As a task and as an event, though the rest of it may look well."""
    headers = UnreadableHeaders(encode_task(IDENTITY, b"").headers or {}, "header 'x' is too deep")
    with pytest.raises(MessageRefusedError, match="header 'x' is too deep"):
        decode(Envelope(b"{}", None, headers=headers))


@pytest.mark.parametrize(("size", "frame_bytes"), [(60_000, 131_072), (130_000, 131_072), (60_000, 4096)])
def test_a_dead_letter_keeps_what_it_has_room_for(size: int, frame_bytes: int) -> None:
    """What tells which task it is comes first, then whatever is small; long texts are cut, and say so."""
    own = encode_task(IDENTITY, b"").headers or {}
    foreign: dict[str, Any] = {
        "long": "ä" * (size // 2),
        "longer": "y" * size,
        "list": ["z" * size],
        "small": "kept",
        **own,
    }
    letter = encode_dead_letter(Envelope(b"body", "a/b", "m", None, None, foreign), "q" * 255, "why " * 20_000, NOW)
    letter = fitting_dead_letter(letter, frame_bytes)
    publish(letter, frame_bytes)
    headers = letter.headers or {}
    assert headers["reason"].startswith("why why")
    assert headers["reason"].endswith("(cut, of 80,000 bytes)")
    original = headers["original"]
    assert {name: original[name] for name in own} == own
    assert original["small"] == "kept"
    assert original["long"].startswith("ää")
    assert letter.body == b"body"


def test_a_dead_letter_has_no_text_that_amqp_cannot_carry() -> None:
    """Properties and names that are no UTF-8 become longer when they are told, and are cut then."""
    headers: Any = {b"\xff" * 255: {b"\xfe" * 255: 1}, "surrogate": "\ud800"}
    odd: Any = b"\xff" * 255
    letter = encode_dead_letter(Envelope(b"", odd, odd, odd, odd, headers), "q", "half a pair: \ud800", NOW)
    publish(letter, 131_072)
    assert (letter.headers or {})["reason"] == "half a pair: ?"


def test_very_many_headers_are_not_kept_all() -> None:
    """Names too take room."""
    headers = {f"{number}" + "x" * 200: "" for number in range(700)}
    letter = encode_dead_letter(Envelope(b"", None, headers=headers), "q", "why", NOW)
    publish(letter, 131_072)
    assert 600 < len((letter.headers or {})["original"]) < 620


def test_pika_reads_what_it_sends_itself() -> None:
    """Its own tables come back as they were: other connections of this process use them too."""
    pieces: list[bytes] = []
    sent = {"a": 1, "b": "text", "c": [True, None, {"d": 2**40}]}
    data.encode_table(pieces, sent)
    assert data.decode_table(b"".join(pieces), 0) == (sent, len(b"".join(pieces)))
