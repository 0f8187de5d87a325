"""A message's headers, from bytes to values, whatever somebody has put into them.

What a library raises here closes the connection, and the broker delivers the message again, to the next worker: one
foreign message could keep all of them from working. pika 1.4 raises for a timestamp after the year 9999, say, and for
arrays that are nested deeply. So nothing is raised here: a value that Python cannot hold is read as None, and what
cannot be read at all is left out, and `UnreadableHeaders` says so to whoever decides about the message.

Numbers of all widths are plain ones; pika makes an object of its own of those with 64 bits, and cuts fractions off.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from pika import data

from limetask.message import UnreadableHeaders

MAX_NESTING = 32
"""How deep arrays and tables may be nested in a header. RabbitMQ's own, in `x-death`, are three levels deep."""

_SIZE = struct.Struct(">I")
_SIZED = 1 + _SIZE.size  # the type and the size of what follows
_TEXT, _BYTES, _ARRAY, _TABLE = b"SxAF"


def decode_table(encoded: bytes, offset: int) -> tuple[dict[Any, Any], int]:
    """Return the headers that begin at `offset`, and where they end. Does what pika's function of this name does."""
    begin = offset + _SIZE.size
    end = begin + _SIZE.unpack_from(encoded, offset)[0]
    headers: dict[Any, Any] = {}
    offset = begin
    try:
        while offset < end:
            name, offset = decode_name(encoded, offset)
            headers, offset = add_header(headers, name, encoded, offset)
    except (_UnreadableError, struct.error, IndexError) as exc:
        headers = UnreadableHeaders(headers, f"its headers cannot be read after {len(headers)} of them: {exc}")
    return headers, end


def add_header(headers: dict[Any, Any], name: Any, encoded: bytes, offset: int) -> tuple[dict[Any, Any], int]:
    """Add the header whose type stands at `offset`, and return all, and where it ends."""
    try:
        headers[name], offset = _decode_value(encoded, offset, MAX_NESTING)
    except (_UnreadableError, struct.error, IndexError) as exc:
        if encoded[offset] not in (_ARRAY, _TABLE):
            raise
        size = _SIZE.unpack_from(encoded, offset + 1)[0]
        headers = UnreadableHeaders(headers, f"header {name!r} {exc}")
        headers[name] = f"(left out: {size:,} bytes; it {exc})"
        offset += _SIZED + size
    return headers, offset


def decode_name(encoded: bytes, offset: int) -> tuple[Any, int]:
    """Return a text of up to 255 bytes, and where it ends; what is no UTF-8 stays bytes, as in pika."""
    end = offset + 1 + encoded[offset]
    return _text_or_bytes(encoded[offset + 1 : end]), end


def tolerate_strange_headers() -> None:
    """Have pika read headers with this, in this process."""
    data.decode_table = decode_table


class _UnreadableError(ValueError):
    """A value that says nothing of where it ends, or is too deep to be followed."""


def _decode_value(encoded: bytes, offset: int, levels: int) -> tuple[Any, int]:
    kind = encoded[offset]
    known = _SCALARS.get(kind)
    if known is not None:
        form, make = known
        return _value_or_none(make, form.unpack_from(encoded, offset + 1)), offset + 1 + form.size
    if kind not in (_TEXT, _BYTES, _ARRAY, _TABLE):
        raise _UnreadableError(f"has a value of the unknown type {chr(kind)!r}")
    begin = offset + _SIZED
    end = begin + _SIZE.unpack_from(encoded, offset + 1)[0]
    if kind == _TEXT:
        return _text_or_bytes(encoded[begin:end]), end
    if kind == _BYTES:
        return encoded[begin:end], end
    if not levels:
        raise _UnreadableError(f"is nested more than {MAX_NESTING} levels deep")
    decode = _decode_array if kind == _ARRAY else _decode_inner_table
    return decode(encoded, begin, end, levels - 1), end


def _decode_array(encoded: bytes, offset: int, end: int, levels: int) -> list[Any]:
    values = []
    while offset < end:
        value, offset = _decode_value(encoded, offset, levels)
        values.append(value)
    return values


def _decode_inner_table(encoded: bytes, offset: int, end: int, levels: int) -> dict[Any, Any]:
    values = {}
    while offset < end:
        name, offset = decode_name(encoded, offset)
        values[name], offset = _decode_value(encoded, offset, levels)
    return values


def _text_or_bytes(encoded: bytes) -> Any:
    """Return a text, or the bytes of what is none: what they are for decides whether that matters."""
    try:
        return encoded.decode()
    except UnicodeDecodeError:
        return encoded


def _value_or_none(make: Callable[..., Any], parts: tuple[Any, ...]) -> Any:
    try:
        return make(*parts)
    except (OverflowError, ValueError, ArithmeticError, OSError):
        return None


def _decimal(decimals: int, unscaled: int) -> Decimal:
    return Decimal(unscaled).scaleb(-decimals)


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


# As RabbitMQ reads them: https://www.rabbitmq.com/amqp-0-9-1-errata#section_3. Both kinds of 64 bits have a sign.
_SCALARS: dict[int, tuple[struct.Struct, Callable[..., Any]]] = {
    ord(kind): (struct.Struct(f">{form}"), make)
    for kind, form, make in (
        ("t", "B", bool),
        ("b", "b", int),
        ("B", "B", int),
        ("s", "h", int),
        ("U", "h", int),
        ("u", "H", int),
        ("I", "i", int),
        ("i", "I", int),
        ("l", "q", int),
        ("L", "q", int),
        ("f", "f", float),
        ("d", "d", float),
        ("D", "Bi", _decimal),
        ("T", "Q", _moment),
        ("V", "", lambda: None),
    )
}
