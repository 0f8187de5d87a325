"""What a task returns or publishes, as JSON: everybody who may see it, in any language, can read it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from decimal import Decimal
from typing import Any

import orjson

from limetask.arguments import type_name
from limetask.errors import ResultError


def encode_result(value: Any, max_bytes: int) -> bytes:
    """Return a task's result as JSON.

    Raises ResultError for what JSON cannot express and for more than `max_bytes`.
    """
    return encode_json(value, max_bytes, "the result", "return a summary, and keep the data where it belongs")


def encode_json(value: Any, max_bytes: int, what: str, advice: str = "keep the data where it belongs") -> bytes:
    """Return a value as JSON; `what` it is and what to do about too much of it is for the message of an error.

    Raises ResultError for what JSON cannot express and for more than `max_bytes`.
    """
    try:
        encoded = orjson.dumps(value, default=_json_default, option=orjson.OPT_NON_STR_KEYS)
    except TypeError as exc:  # orjson.JSONEncodeError is one
        raise ResultError(f"{what} cannot be expressed as JSON: {_why_no_json(value, exc)}") from exc
    if b"null" in encoded and _holds_no_number(value):
        raise ResultError(f"{what} cannot be expressed as JSON: it holds a NaN or an infinity")
    if len(encoded) > max_bytes:
        raise ResultError(f"{what} takes {len(encoded):,} bytes as JSON and the limit is {max_bytes:,} bytes: {advice}")
    return encoded


def _why_no_json(value: Any, error: TypeError) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, TypeError) else error
    if "Dict key must" not in str(cause):
        return str(cause)
    strange = next((key for key in _keys(value) if not _is_json({key: None})), None)
    return str(cause) if strange is None else f"a key is a value of type {type_name(strange)}"


def _is_json(value: Any) -> bool:
    try:
        orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        return False
    return True


def _keys(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value
    for part in _parts(value):
        yield from _keys(part)


def _holds_no_number(value: Any) -> bool:
    """Return True if a value holds a NaN or an infinity, which orjson writes as null."""
    if isinstance(value, float):
        return not math.isfinite(value)
    return any(map(_holds_no_number, _parts(value)))


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list | tuple):
        return value
    if is_dataclass(value):
        return [getattr(value, field.name) for field in fields(value)]
    return ()


def _json_default(value: Any) -> Any:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, tuple):  # a named tuple; plain ones never come here
        return list(value)
    raise TypeError(f"it holds a value of type {type_name(value)}")
