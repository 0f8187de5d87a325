"""A message's headers and properties, whatever somebody has put into them.

pamqp raises for a timestamp after the year 9999, say, for a text that is no UTF-8, and for arrays that are nested
deeply, and that closes the connection. The broker would deliver the message again: one foreign event could keep a
durable subscription from all others. So headers are read as `limetask.amqp.headers` does it, with whatever it leaves
out, a moment that Python cannot hold is read as None, and a text that is no UTF-8 stays bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pamqp import decode

from limetask.amqp.headers import decode_name, decode_table

_TIMESTAMP_BYTES = 8

_Decode = Callable[[bytes], tuple[int, Any]]


def tolerate_strange_headers() -> None:
    """Have pamqp read what others send like this, in this process."""
    properties: dict[str, Any] = decode.METHODS
    properties["timestamp"] = _or_none(properties["timestamp"])
    properties["table"] = _table
    properties["shortstr"] = _short_text


def _or_none(decode_moment: _Decode) -> _Decode:
    def decode_or_none(encoded: bytes) -> tuple[int, Any]:
        try:
            return decode_moment(encoded)
        except (OverflowError, ValueError, OSError):
            if len(encoded) < _TIMESTAMP_BYTES:
                raise
            return _TIMESTAMP_BYTES, None

    return decode_or_none


def _table(encoded: bytes) -> tuple[int, dict[Any, Any]]:
    headers, end = decode_table(encoded, 0)
    return end, headers


def _short_text(encoded: bytes) -> tuple[int, Any]:
    text, end = decode_name(encoded, 0)
    return end, text
