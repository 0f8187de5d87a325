"""Messages as clients in other languages make them, and stranger ones: every type that AMQP's tables know, from a seed.

pika can only send what Python's types stand for, so headers are put together here, byte by byte.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterable
from typing import Any

import pika

_CONTENT_TYPE, _HEADERS, _DELIVERY_MODE, _TIMESTAMP, _TYPE = 1 << 15, 1 << 13, 1 << 12, 1 << 6, 1 << 5
DEEP = 900
"""So many arrays in one another are more than Python likes to follow; brokers pass them on."""


class RawProperties(pika.BasicProperties):  # type: ignore[misc]
    """Properties whose headers are given as AMQP has them; texts may be bytes that are no UTF-8."""

    def __init__(self, table: bytes, *, timestamp: int | None = None, **texts: Any) -> None:
        super().__init__(**texts)
        self._table = table
        self._moment = timestamp

    def encode(self) -> list[bytes]:
        """What pika puts into a frame."""
        flags = _HEADERS | _DELIVERY_MODE
        pieces = [struct.pack(">I", len(self._table)), self._table, b"\x02"]
        if self.content_type is not None:
            flags |= _CONTENT_TYPE
            pieces.insert(0, short_text(self.content_type))
        if self._moment is not None:
            flags |= _TIMESTAMP
            pieces.append(struct.pack(">Q", self._moment))
        if self.type is not None:
            flags |= _TYPE
            pieces.append(short_text(self.type))
        return [struct.pack(">H", flags), *pieces]


def short_text(value: str | bytes) -> bytes:
    encoded = value.encode() if isinstance(value, str) else value
    return bytes([len(encoded)]) + encoded


def long_text(value: str | bytes, kind: bytes = b"S") -> bytes:
    encoded = value.encode() if isinstance(value, str) else value
    return kind + struct.pack(">I", len(encoded)) + encoded


def array(values: Iterable[bytes]) -> bytes:
    inner = b"".join(values)
    return b"A" + struct.pack(">I", len(inner)) + inner


def table(fields: Iterable[tuple[str | bytes, bytes]]) -> bytes:
    """The fields of a table without its size: what a message's headers are."""
    return b"".join(short_text(name) + value for name, value in fields)


def inner_table(fields: Iterable[tuple[str | bytes, bytes]]) -> bytes:
    inner = table(fields)
    return b"F" + struct.pack(">I", len(inner)) + inner


def deep_array(levels: int = DEEP) -> bytes:
    value = array([])
    for _ in range(levels - 1):
        value = array([value])
    return value


def deep_table(levels: int = DEEP) -> bytes:
    value = inner_table([])
    for _ in range(levels - 1):
        value = inner_table([("t", value)])
    return value


def field(value: Any) -> bytes:
    """A value as pika would send it."""
    pieces: list[bytes] = []
    pika.data.encode_value(pieces, value)
    return b"".join(pieces)


WIDTHS: dict[str, Callable[[int], bytes]] = {
    "b": lambda number: b"b" + struct.pack(">b", number),
    "B": lambda number: b"B" + struct.pack(">B", number),
    "s": lambda number: b"s" + struct.pack(">h", number),
    "u": lambda number: b"u" + struct.pack(">H", number),
    "I": lambda number: b"I" + struct.pack(">i", number),
    "i": lambda number: b"i" + struct.pack(">I", number),
    "l": lambda number: b"l" + struct.pack(">q", number),
    "L": lambda number: b"L" + struct.pack(">q", number),
}
"""Whole numbers of every width that RabbitMQ knows."""


def strange_value(chance: random.Random, depth: int = 3) -> bytes:
    """A value of any type that RabbitMQ takes, with extremes among them; it takes no number that is none."""
    kinds: list[Callable[[], bytes]] = [
        lambda: b"t" + bytes([chance.choice([0, 1, 255])]),
        *(lambda width=width: WIDTHS[width](chance.choice([0, 1, 127])) for width in WIDTHS),
        lambda: b"l" + struct.pack(">q", chance.choice([-(2**63), 2**63 - 1, 2**31, -1])),
        lambda: b"f" + struct.pack(">f", chance.choice([0.5, -3e38])),
        lambda: b"d" + struct.pack(">d", chance.choice([1.5, 1e300])),
        lambda: b"D" + struct.pack(">Bi", chance.choice([0, 2, 255]), chance.randrange(-(2**31), 2**31)),
        lambda: long_text(chance.randbytes(chance.randrange(40))),
        lambda: long_text("täxt \N{SNOWMAN}\n\x1b[31m" * chance.randrange(3)),
        lambda: long_text(chance.randbytes(chance.randrange(40)), b"x"),
        lambda: b"T" + struct.pack(">Q", chance.choice([0, 1_700_000_000, 2**60, 2**64 - 1])),
        lambda: b"V",
    ]
    if depth:
        kinds += [
            lambda: array(strange_value(chance, depth - 1) for _ in range(chance.randrange(4))),
            lambda: inner_table(strange_fields(chance, depth - 1)),
        ]
    return chance.choice(kinds)()


def strange_fields(chance: random.Random, depth: int = 3) -> list[tuple[str | bytes, bytes]]:
    """Fields of a table: names that are no UTF-8 are among them."""
    names: list[str | bytes] = ["a", "", "x-death", "kind", "ä" * 127, b"\xff" * 255, "BBC", "original", "reason"]
    return [(chance.choice(names), strange_value(chance, depth)) for _ in range(chance.randrange(5))]
