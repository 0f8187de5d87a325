"""Foreign headers as ones that can be published again: of AMQP's plain types, and no more than there is room for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LONGEST_SHORT_TEXT = 255
"""How many bytes the name of a header, and a property that is a text, may have."""

_INTS = range(-(2**63), 2**63)
# A text's type and length, and the most that any number takes with its type.
_TEXT_OVERHEAD, _NUMBER_BYTES = 5, 9


def plain_headers(headers: Mapping[Any, Any], most_bytes: int, first: frozenset[str]) -> dict[str, Any]:
    """Return headers as plain values that take `most_bytes` at most.

    Those named in `first` and all that are small are kept as they are; if the rest is too much, the next text is cut,
    and what is larger is left out.
    """
    plain = {cut(plain_text(name), LONGEST_SHORT_TEXT): _plain(value) for name, value in headers.items()}
    sizes = {name: _named_size(name, value) for name, value in plain.items()}
    if sum(sizes.values()) <= most_bytes:
        return plain
    kept: dict[str, Any] = {}
    room = most_bytes
    for name in sorted(plain, key=lambda name: (name not in first, sizes[name])):
        value = plain[name] if sizes[name] <= room else _in_short(plain[name], room - _named_size(name, ""))
        if value is None and plain[name] is not None:
            break
        kept[name] = value
        room -= _named_size(name, value)
    return kept


def plain_text(value: Any) -> str:
    """Return a text of valid Unicode for any value; bytes are read as UTF-8."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value).encode("utf-8", "replace").decode()


def cut(text: str, most_bytes: int) -> str:
    """Return a text that takes `most_bytes` at most, as valid Unicode; one that is cut says so at its end."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= most_bytes:
        return encoded.decode()
    note = f"... (cut, of {len(encoded):,} bytes)"
    if len(note) > most_bytes:
        return encoded[:most_bytes].decode("utf-8", "ignore")
    return encoded[: most_bytes - len(note)].decode("utf-8", "ignore") + note


def _in_short(value: Any, most_bytes: int) -> str | None:
    """Return what can be told of a value in so many bytes: a text's beginning, else its size; None for no room."""
    told = value if isinstance(value, str) else f"(left out: {_size(value):,} bytes)"
    return cut(told, most_bytes) if most_bytes > 0 else None


def _plain(value: Any) -> Any:
    """Return a foreign header's value as one that can be published again."""
    match value:
        case None | bool():
            return value
        case int() if value in _INTS:
            return value
        case dict():
            return {cut(plain_text(name), LONGEST_SHORT_TEXT): _plain(part) for name, part in value.items()}
        case list():
            return [_plain(part) for part in value]
    return plain_text(value)


def _size(value: Any) -> int:
    """Return how many bytes a plain value takes in a message, or a few more."""
    match value:
        case str():
            return _TEXT_OVERHEAD + len(value.encode("utf-8", "replace"))
        case dict():
            return _TEXT_OVERHEAD + sum(_named_size(name, part) for name, part in value.items())
        case list():
            return _TEXT_OVERHEAD + sum(map(_size, value))
    return _NUMBER_BYTES


def _named_size(name: str, value: Any) -> int:
    return 1 + len(name.encode()) + _size(value)
