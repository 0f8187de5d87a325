"""Headers that no Python value can hold.

pamqp lets the error of one such header, a timestamp after the year 9999 say, close the connection. The broker would
deliver the message again: one foreign event could keep a durable subscription from all others. So such a header is
read as None, as `limetask.amqp.headers` does with pika.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pamqp import decode

# How many bytes these take: timestamp, double, float, decimal.
_SIZES = {b"T": 8, b"d": 8, b"f": 4, b"D": 5}

_Decode = Callable[[bytes], tuple[int, Any]]


def tolerate_strange_headers() -> None:
    """Have pamqp read what it cannot hold as None, in this process."""
    table: dict[bytes, Any] = decode.TABLE_MAPPING
    for kind, size in _SIZES.items():
        table[kind] = _or_none(table[kind], size)
    properties: dict[str, Any] = decode.METHODS
    properties["timestamp"] = _or_none(properties["timestamp"], _SIZES[b"T"])


def _or_none(decode_value: _Decode, size: int) -> _Decode:
    def decode_or_none(encoded: bytes) -> tuple[int, Any]:
        try:
            return decode_value(encoded)
        except (OverflowError, ValueError, ArithmeticError, OSError):
            if len(encoded) < size:
                raise
            return size, None

    return decode_or_none
