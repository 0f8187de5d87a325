"""The frames in which messages, acks and confirms travel, as AMQP 0-9-1 has them: bytes to values and back.

pika does the same for every kind of frame, with an object for each. These few are all but a thousandth of what a worker
or a busy producer sends and receives, so they have code of their own; whatever is rare in them is left to pika.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from pika import data, frame, spec
from pika.exceptions import ShortStringTooLong

from limetask.amqp.headers import decode_name, decode_table
from limetask.message import Envelope

METHOD, HEADER, BODY = spec.FRAME_METHOD, spec.FRAME_HEADER, spec.FRAME_BODY
FRAME_END = spec.FRAME_END
# The type, the channel's number and the payload's size come before the payload, one byte after it.
FRAME_HEADER = struct.Struct(">BHI")
FRAME_OVERHEAD_BYTES = FRAME_HEADER.size + 1

_DELIVER, _ACK, _NACK = spec.Basic.Deliver.INDEX, spec.Basic.Ack.INDEX, spec.Basic.Nack.INDEX
_METHOD_ID = struct.Struct(">I")
_TAG_AND_BITS = struct.Struct(">QB")
_ACK_FRAME = struct.Struct(">BHIIQBB")
_ACK_BYTES = _METHOD_ID.size + _TAG_AND_BITS.size
# Class, weight, body size and flags.
_CONTENT = struct.Struct(">HHQH")
_SIZE = struct.Struct(">I")
_TEXT_VALUE = struct.Struct(">BI")
_INT_VALUE = struct.Struct(">Bi")
_TEXT, _INT = ord("S"), ord("I")
_INTS = range(-(2**31), 2**31)
_LONGEST_SHORT_TEXT = 255

_Properties = spec.BasicProperties
_CONTENT_TYPE, _HEADERS, _DELIVERY_MODE = (
    _Properties.FLAG_CONTENT_TYPE,
    _Properties.FLAG_HEADERS,
    _Properties.FLAG_DELIVERY_MODE,
)
_REPLY_TO, _MESSAGE_ID, _TYPE = _Properties.FLAG_REPLY_TO, _Properties.FLAG_MESSAGE_ID, _Properties.FLAG_TYPE
_OURS = _CONTENT_TYPE | _HEADERS | _DELIVERY_MODE | _REPLY_TO | _MESSAGE_ID | _TYPE
_PERSISTENT = b"\x02"

Properties = tuple[str | None, dict[str, Any] | None, str | None, str | None, str | None]
"""Content type, headers, reply_to, message id and type."""


def encode_publish(
    channel_number: int,
    exchange: str,
    routing_key: str,
    envelope: Envelope,
    copy_to: str | None,
    *,
    mandatory: bool,
    frame_bytes: int,
) -> bytes:
    """Return all frames of one persistent message, none longer than `frame_bytes`.

    Raises one of pika's AMQPErrors for what AMQP cannot carry.
    """
    header = _encode_header(envelope, copy_to)
    return b"".join(
        (
            _publish_method(channel_number, exchange, routing_key, mandatory),
            FRAME_HEADER.pack(HEADER, channel_number, len(header)),
            header,
            _END,
            *_body_frames(channel_number, envelope.body, frame_bytes - FRAME_OVERHEAD_BYTES),
        )
    )


def encode_ack(channel_number: int, tag: int, *, multiple: bool) -> bytes:
    """Return the frame that acks a delivery, with `multiple` all before it too."""
    return _ACK_FRAME.pack(METHOD, channel_number, _ACK_BYTES, _ACK, tag, multiple, FRAME_END)


def decode_delivery(buffer: bytes, offset: int) -> tuple[bytes, int, bool, bytes] | None:
    """Return consumer tag, delivery tag, whether it is redelivered, and the exchange; None for any other method."""
    if _METHOD_ID.unpack_from(buffer, offset)[0] != _DELIVER:
        return None
    begin = offset + 5
    end = begin + buffer[offset + 4]
    tag, bits = _TAG_AND_BITS.unpack_from(buffer, end)
    exchange = end + _TAG_AND_BITS.size + 1
    return buffer[begin:end], tag, bool(bits & 1), buffer[exchange : exchange + buffer[exchange - 1]]


def decode_confirm(buffer: bytes, offset: int) -> tuple[int, bool, bool] | None:
    """Return the number of a publish, whether all before it are meant too, and whether the broker has taken it.

    None for any other method.
    """
    method = _METHOD_ID.unpack_from(buffer, offset)[0]
    if method != _ACK and method != _NACK:
        return None
    number, bits = _TAG_AND_BITS.unpack_from(buffer, offset + 4)
    return number, bool(bits & 1), method == _ACK


def decode_header(buffer: bytes, offset: int, end: int) -> tuple[int, Properties]:
    """Return the size of the body, in bytes, and the properties that limetask uses."""
    _, _, body_bytes, flags = _CONTENT.unpack_from(buffer, offset)
    if flags & ~_OURS:
        return body_bytes, _rare_properties(buffer[offset + _CONTENT.size - 2 : end])
    content_type = headers = reply_to = message_id = kind = None
    offset += _CONTENT.size
    if flags & _CONTENT_TYPE:
        content_type, offset = decode_name(buffer, offset)
    if flags & _HEADERS:
        headers, offset = _decode_headers(buffer, offset)
    if flags & _DELIVERY_MODE:
        offset += 1
    if flags & _REPLY_TO:
        reply_to, offset = decode_name(buffer, offset)
    if flags & _MESSAGE_ID:
        message_id, offset = decode_name(buffer, offset)
    if flags & _TYPE:
        kind, offset = decode_name(buffer, offset)
    return body_bytes, (content_type, headers, reply_to, message_id, kind)


_END = bytes([FRAME_END])


# There are as many as there are task names, times two: success and failure.
@lru_cache(maxsize=4096)
def _publish_method(channel_number: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
    method = spec.Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory)
    encoded: bytes = frame.Method(channel_number, method).marshal()
    return encoded


def _encode_header(envelope: Envelope, copy_to: str | None) -> bytes:
    flags = _DELIVERY_MODE
    parts = [b""]
    if envelope.content_type is not None:
        flags |= _CONTENT_TYPE
        parts.append(_short_text(envelope.content_type))
    if envelope.headers is not None or copy_to is not None:
        flags |= _HEADERS
        table = _encode_headers(envelope.headers or {}) + (_encode_copy(copy_to) if copy_to is not None else b"")
        parts += (_SIZE.pack(len(table)), table)
    parts.append(_PERSISTENT)
    if envelope.reply_to is not None:
        flags |= _REPLY_TO
        parts.append(_short_text(envelope.reply_to))
    if envelope.message_id is not None:
        flags |= _MESSAGE_ID
        parts.append(_encode_short_text(envelope.message_id))
    if envelope.kind is not None:
        flags |= _TYPE
        parts.append(_short_text(envelope.kind))
    parts[0] = _CONTENT.pack(_Properties.INDEX, 0, len(envelope.body), flags)
    return b"".join(parts)


def _encode_headers(headers: Mapping[str, Any]) -> bytes:
    parts: list[bytes] = []
    for name, value in headers.items():
        parts.append(_short_text(name))
        if type(value) is str:
            text = value.encode()
            parts += (_TEXT_VALUE.pack(_TEXT, len(text)), text)
        elif type(value) is int and value in _INTS:
            parts.append(_INT_VALUE.pack(_INT, value))
        else:
            data.encode_value(parts, value)
    return b"".join(parts)


# There are as many reply keys as processes that send.
@lru_cache(maxsize=4096)
def _encode_copy(routing_key: str) -> bytes:
    """Return the header by which the broker routes a message a second time; its receivers do not see it."""
    return _encode_headers({"BCC": [routing_key]})


def _body_frames(channel_number: int, body: bytes, most_bytes: int) -> Iterator[bytes]:
    for begin in range(0, len(body), most_bytes):
        part = body if len(body) <= most_bytes else body[begin : begin + most_bytes]
        yield FRAME_HEADER.pack(BODY, channel_number, len(part))
        yield part
        yield _END


def _encode_short_text(text: str) -> bytes:
    encoded = text.encode()
    if len(encoded) > _LONGEST_SHORT_TEXT:
        raise ShortStringTooLong(encoded)
    return bytes([len(encoded)]) + encoded


# Names of headers, content types and kinds are few, and so are the reply keys of one process.
_short_text = lru_cache(maxsize=1024)(_encode_short_text)


def _decode_headers(buffer: bytes, offset: int) -> tuple[dict[str, Any], int]:
    """Return what `decode_table` does: texts and the shorter numbers, which most headers are, are read here.

    In one function, since each message has some headers, and calls are what takes the time.
    """
    headers: dict[str, Any] = {}
    start = offset
    offset += _SIZE.size
    end = offset + _SIZE.unpack_from(buffer, start)[0]
    try:
        while offset < end:
            begin = offset + 1
            offset = begin + buffer[offset]
            name = buffer[begin:offset].decode()
            kind = buffer[offset]
            if kind == _TEXT:
                begin = offset + _TEXT_VALUE.size
                offset = begin + _SIZE.unpack_from(buffer, offset + 1)[0]
                headers[name] = buffer[begin:offset].decode()
            elif kind == _INT:
                headers[name] = _INT_VALUE.unpack_from(buffer, offset)[1]
                offset += _INT_VALUE.size
            else:
                return decode_table(buffer, start)
    except (IndexError, struct.error, UnicodeDecodeError):
        return decode_table(buffer, start)
    return headers, end


def _rare_properties(encoded: bytes) -> Properties:
    properties = _Properties().decode(encoded)
    return (
        properties.content_type,
        properties.headers,
        properties.reply_to,
        properties.message_id,
        properties.type,
    )
