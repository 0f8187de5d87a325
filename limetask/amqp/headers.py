"""Headers that no Python value can hold.

pika 1.4 lets the error of one such header, a timestamp after the year 9999 say, close the connection. The broker would
deliver the message again, to the next worker: one foreign message could keep all of them from consuming. So such a
header is read as None.
"""

from __future__ import annotations

from typing import Any

from pika import data

# How many bytes these take after the one that tells the kind: timestamp, double, float, decimal.
_SIZES = {b"T": 8, b"d": 8, b"f": 4, b"D": 5}

_decode_value = data.decode_value


def _decode_value_or_none(encoded: bytes, offset: int) -> tuple[Any, int]:
    try:
        value: tuple[Any, int] = _decode_value(encoded, offset)
        return value
    except (OverflowError, ValueError, ArithmeticError, OSError):
        size = _SIZES.get(encoded[offset : offset + 1])
        if size is None:
            raise
        return None, offset + 1 + size


def tolerate_strange_headers() -> None:
    """Have pika read what it cannot hold as None, in this process."""
    data.decode_value = _decode_value_or_none
