"""The frames that limetask reads and writes itself: byte for byte what pika makes of the same message."""

import random
import string
from datetime import UTC, datetime
from typing import Any

import pytest
from pika import BasicProperties, frame, spec
from pika.exceptions import InvalidFrameError, ShortStringTooLong, UnsupportedAMQPFieldException

from limetask.amqp.frames import encode_ack, encode_publish
from limetask.amqp.pika_connection import PikaConnection
from limetask.message import Envelope

CHANNEL = 3
FRAME_BYTES = 4096
BODY_BYTES = FRAME_BYTES - 8


def encoded_by_pika(exchange: str, key: str, envelope: Envelope, copy_to: str | None, *, mandatory: bool) -> bytes:
    headers = envelope.headers if copy_to is None else {**(envelope.headers or {}), "BCC": [copy_to]}
    properties = BasicProperties(
        content_type=envelope.content_type,
        headers=headers,
        delivery_mode=2,
        reply_to=envelope.reply_to,
        message_id=envelope.message_id,
        type=envelope.kind,
    )
    method = spec.Basic.Publish(exchange=exchange, routing_key=key, mandatory=mandatory)
    return frames_of(method, properties, envelope.body)


def frames_of(method: Any, properties: BasicProperties, body: bytes) -> bytes:
    frames = [frame.Method(CHANNEL, method), frame.Header(CHANNEL, len(body), properties)]
    frames += [frame.Body(CHANNEL, body[at : at + BODY_BYTES]) for at in range(0, len(body), BODY_BYTES)]
    return b"".join(one.marshal() for one in frames)


def encoded(envelope: Envelope, copy_to: str | None = None, *, mandatory: bool = True) -> bytes:
    return encode_publish(
        CHANNEL, "exchange", "routing.key", envelope, copy_to, mandatory=mandatory, frame_bytes=FRAME_BYTES
    )


ENVELOPES = {
    "a task": Envelope(
        b"\x82\xa4args\x90\xa6kwargs\x80",
        "application/msgpack",
        "8a3f",
        None,
        "limetask.reply.8a3f",
        {"limetask": 1, "task_id": "0199", "task": "crm.sync", "app": "Müller & Söhne", "attempt": 1, "moved": True},
    ),
    "an event": Envelope(b"{}", "application/json", "8a3f", "completion"),
    "nothing at all": Envelope(b"", None),
    "no headers but an empty table": Envelope(b"x", None, headers={}),
    "a foreign dead letter": Envelope(
        b"\0\xce" * 100,
        "text/plain",
        "1",
        "dead-letter",
        None,
        {"original": {"list": [1, "two", None, {"deep": 2**40}], "float": "1.5"}, "big": 2**31, "small": -(2**31) - 1},
    ),
    "extreme numbers": Envelope(
        b"x", None, headers={"a": 2**31 - 1, "b": -(2**31), "c": 0, "d": False, "e": 2**63 - 1}
    ),
    "a body of just one frame": Envelope(b"x" * BODY_BYTES, "a/b"),
    "a body of one byte more": Envelope(b"x" * (BODY_BYTES + 1), "a/b"),
    "a body of many frames": Envelope(random.Random(1).randbytes(10 * BODY_BYTES), "a/b"),
    "the longest texts": Envelope(b"x", "c" * 255, "m" * 255, "k" * 255, "r" * 255, {"n" * 255: "v" * 10_000}),
}


class TestEncoding:
    @pytest.mark.parametrize("envelope", ENVELOPES.values(), ids=ENVELOPES)
    @pytest.mark.parametrize("mandatory", [True, False])
    @pytest.mark.parametrize("copy_to", [None, "limetask.reply.1"])
    def test_a_publish_is_what_pika_makes_of_it(self, envelope: Envelope, mandatory: bool, copy_to: str | None) -> None:
        expected = encoded_by_pika("exchange", "routing.key", envelope, copy_to, mandatory=mandatory)
        assert encoded(envelope, copy_to, mandatory=mandatory) == expected

    @pytest.mark.parametrize("tag", [1, 255, 2**32, 2**64 - 1])
    @pytest.mark.parametrize("multiple", [True, False])
    def test_an_ack_is_what_pika_makes_of_it(self, tag: int, multiple: bool) -> None:
        assert (
            encode_ack(CHANNEL, tag, multiple=multiple)
            == frame.Method(CHANNEL, spec.Basic.Ack(tag, multiple)).marshal()
        )

    @pytest.mark.parametrize(
        "envelope",
        [
            Envelope(b"", "c" * 256),
            Envelope(b"", None, message_id="é" * 128),
            Envelope(b"", None, headers={"n" * 256: 1}),
        ],
    )
    def test_too_long_a_text_is_refused(self, envelope: Envelope) -> None:
        with pytest.raises(ShortStringTooLong):
            encoded(envelope)

    def test_a_header_of_a_strange_type_is_refused(self) -> None:
        with pytest.raises(UnsupportedAMQPFieldException):
            encoded(Envelope(b"", None, headers={"set": {1}}))


class Reader:
    """A PikaConnection without a socket: what it hands over, and what it leaves to pika."""

    def __init__(self) -> None:
        self.delivered: list[tuple[bytes, int, bool, bytes, Envelope]] = []
        self.confirmed: list[tuple[int, bool, bool]] = []
        self.left: list[Any] = []
        self.connection = PikaConnection.__new__(PikaConnection)
        self.connection._frame_buffer = b""
        self.connection.bytes_received = 0
        self.connection._takers = {}
        self.connection._process_frame = self.left.append
        self.connection.hand_over(
            CHANNEL,
            lambda *delivery: self.delivered.append(delivery),
            lambda *confirm: self.confirmed.append(confirm),
        )

    def read(self, data: bytes, piece_bytes: int) -> None:
        for at in range(0, len(data), piece_bytes):
            self.connection._on_data_available(data[at : at + piece_bytes])


def delivery(tag: int, properties: BasicProperties, body: bytes, *, redelivered: bool = False) -> bytes:
    method = spec.Basic.Deliver("consumer-1", tag, redelivered, "exchange", "a.routing.key")
    return frames_of(method, properties, body)


OURS = BasicProperties("a/b", headers={"a": "text", "n": 7}, delivery_mode=2, reply_to="r", message_id="m", type="t")
FOREIGN = BasicProperties(
    content_type="a/b",
    content_encoding="gzip",
    headers={"when": datetime(2026, 1, 1, tzinfo=UTC), "list": [1, 2], "table": {"x": None}, "bytes": b"\xff"},
    priority=3,
    correlation_id="c",
    expiration="1000",
    message_id="m",
    timestamp=1,
    type="t",
    user_id="u",
    app_id="a",
    cluster_id="i",
)


class TestDecoding:
    @pytest.mark.parametrize("piece_bytes", [1, 7, 100, 1_000_000])
    def test_deliveries_are_put_together_however_they_arrive(self, piece_bytes: int) -> None:
        reader = Reader()
        bodies = [b"", b"x", b"y" * BODY_BYTES, random.Random(2).randbytes(3 * BODY_BYTES + 5)]
        data = b"".join(delivery(tag, OURS, body) for tag, body in enumerate(bodies))
        reader.read(data, piece_bytes)
        headers = {"a": "text", "n": 7}
        assert reader.delivered == [
            (b"consumer-1", tag, False, b"exchange", Envelope(body, "a/b", "m", "t", "r", headers))
            for tag, body in enumerate(bodies)
        ]
        assert reader.left == []
        assert reader.connection.bytes_received == len(data)

    @pytest.mark.parametrize("redelivered", [True, False])
    def test_a_foreign_message_is_read_as_pika_reads_it(self, redelivered: bool) -> None:
        reader = Reader()
        reader.read(delivery(2**64 - 1, FOREIGN, b"body", redelivered=redelivered), 50)
        expected = Envelope(b"body", "a/b", "m", "t", None, FOREIGN.headers)
        assert reader.delivered == [(b"consumer-1", 2**64 - 1, redelivered, b"exchange", expected)]

    def test_a_message_without_properties(self) -> None:
        reader = Reader()
        reader.read(delivery(1, BasicProperties(), b"body"), 1000)
        assert reader.delivered == [(b"consumer-1", 1, False, b"exchange", Envelope(b"body", None))]

    def test_a_text_that_is_none_stays_bytes(self) -> None:
        """What is no UTF-8 is for the codec to refuse, not for the connection to stumble over."""
        reader = Reader()
        reader.read(
            delivery(1, BasicProperties(message_id=b"\xff", headers={"t": "x"}), b"").replace(b"x", b"\xfe"), 1000
        )
        envelope = reader.delivered[0][4]
        message_id: Any = envelope.message_id
        assert message_id == b"\xff"
        assert envelope.headers == {"t": b"\xfe"}

    @pytest.mark.parametrize("method", [spec.Basic.Ack, spec.Basic.Nack])
    @pytest.mark.parametrize("multiple", [True, False])
    def test_confirms(self, method: Any, multiple: bool) -> None:
        reader = Reader()
        reader.read(frame.Method(CHANNEL, method(2**33, multiple)).marshal(), 1000)
        assert reader.confirmed == [(2**33, multiple, method is spec.Basic.Ack)]

    def test_everything_else_is_pikas(self) -> None:
        """Other channels, heartbeats, other methods, and messages that are no deliveries."""
        reader = Reader()
        got = frames_of(spec.Basic.GetOk(1, False, "e", "k", 0), OURS, b"got")
        other = frame.Method(CHANNEL + 1, spec.Basic.Ack(1, False)).marshal()
        data = frame.Heartbeat().marshal() + delivery(1, OURS, b"x") + got + other
        reader.read(data, 11)
        assert [type(one).__name__ for one in reader.left] == ["Heartbeat", "Method", "Header", "Body", "Method"]
        assert len(reader.delivered) == 1
        assert reader.confirmed == []
        assert reader.connection.bytes_received == len(data)

    def test_what_comes_before_a_channel_is_handed_over_is_pikas(self) -> None:
        reader = Reader()
        reader.connection._takers = {}
        reader.read(delivery(1, OURS, b"x"), 1000)
        assert len(reader.left) == 3

    def test_a_frame_that_does_not_end_is_an_error(self) -> None:
        broken = delivery(1, OURS, b"x")[:-1] + b"\0"
        with pytest.raises(InvalidFrameError):
            Reader().read(broken, 1000)

    def test_a_body_that_is_too_long_is_an_error(self) -> None:
        frames = delivery(1, OURS, b"xy").replace(
            frame.Body(CHANNEL, b"xy").marshal(), frame.Body(CHANNEL, b"xyz").marshal()
        )
        with pytest.raises(InvalidFrameError):
            Reader().read(frames, 1000)

    def test_any_message_comes_back_as_it_was(self) -> None:
        """Random messages, cut anywhere, through our own encoder."""
        chance = random.Random(3)

        def text() -> str:
            return "".join(chance.choices(string.printable + "äß✓", k=chance.randrange(1, 40)))

        for _ in range(200):
            headers = {text(): chance.choice([text(), chance.randrange(-(2**40), 2**40), True, None]) for _ in range(5)}
            envelope = Envelope(chance.randbytes(chance.randrange(9000)), text(), text(), text(), text(), headers)
            publish = encoded(envelope)
            method = frame.Method(
                CHANNEL, spec.Basic.Publish(exchange="exchange", routing_key="routing.key", mandatory=True)
            ).marshal()
            deliver = frame.Method(CHANNEL, spec.Basic.Deliver("c", 1, False, "exchange", "routing.key")).marshal()
            reader = Reader()
            reader.read(deliver + publish.removeprefix(method), chance.randrange(1, 10_000))
            assert reader.delivered == [(b"c", 1, False, b"exchange", envelope)]
