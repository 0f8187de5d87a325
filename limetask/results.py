"""What a task returns or publishes, as JSON: everybody who may see it, in any language, can read it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import orjson

from limetask.arguments import type_name
from limetask.errors import ResultError
from limetask.plain import to_plain, to_plain_key, way_out

_KEY_REFUSED = "Dict key must"
_OUR_WORDS = {
    "recursion": "it holds itself or is nested too deeply",
    "64-bit range": "it holds a whole number of more than 64 bits: convert it, such as with str(x)",
    "surrogates": "it holds a text that is not valid Unicode",
    "must not have tzinfo": "it holds a time with a zone: convert it, such as with x.isoformat()",
}


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
        encoded = _dumps(value)
    except (TypeError, RecursionError) as exc:  # orjson.JSONEncodeError is a TypeError
        raise ResultError(f"{what} cannot be expressed as JSON: {_why_no_json(value, exc)}") from exc
    if b"null" in encoded and _holds_no_number(value):
        raise ResultError(f"{what} cannot be expressed as JSON: it holds a NaN or an infinity")
    if len(encoded) > max_bytes:
        raise ResultError(f"{what} takes {len(encoded):,} bytes as JSON and the limit is {max_bytes:,} bytes: {advice}")
    return encoded


def _dumps(value: Any) -> bytes:
    try:
        return orjson.dumps(value, default=_json_default, option=orjson.OPT_NON_STR_KEYS)
    except TypeError as exc:
        if _KEY_REFUSED not in str(_cause_of(exc)):
            raise
        # Keys never come to `default`.
        return orjson.dumps(_with_plain_keys(value), default=_json_default, option=orjson.OPT_NON_STR_KEYS)


def _with_plain_keys(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {to_plain_key(key): _with_plain_keys(part) for key, part in value.items()}
    if is_dataclass(value) and not isinstance(value, type):  # as orjson does it
        names = [field.name for field in fields(value) if not field.name.startswith("_")]
        return {name: _with_plain_keys(getattr(value, name)) for name in names}
    return list(map(_with_plain_keys, value)) if isinstance(value, list | tuple) else value


def _why_no_json(value: Any, error: Exception) -> str:
    cause = str(_cause_of(error))
    if _KEY_REFUSED in cause:
        strange = next((key for key in _keys(value) if not _is_json({to_plain_key(key): None})), None)
        return cause if strange is None else _complaint_about_key(strange)
    return next((ours for theirs, ours in _OUR_WORDS.items() if theirs in cause.lower()), cause)


def _complaint_about_key(key: Any) -> str:
    expression = "x.decode()" if isinstance(key, bytes) else "str(x)"
    return f"a key is a value of type {type_name(key)}: convert it, such as with {expression}"


def _cause_of(error: BaseException) -> BaseException:
    """Return what `_json_default` raised, which orjson wraps once for each value in a value."""
    cause = error.__cause__
    return _cause_of(cause) if isinstance(cause, TypeError) else error


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
    if isinstance(value, Enum):
        return (value.value,)
    if is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in fields(value)]
    return ()


def _json_default(value: Any) -> Any:
    try:
        plain = to_plain(value)
    except Exception as exc:  # noqa: BLE001 - of the value's own code
        raise TypeError(_complaint(value, exc)) from None
    if _holds_no_number(plain):
        raise TypeError("it holds a NaN or an infinity")
    return plain


def _complaint(value: Any, error: Exception) -> str:
    reason = "" if type(error) is TypeError else f" ({type(error).__name__}: {error})"
    return f"it holds a value of type {type_name(value)}{reason}: convert it, such as with {way_out(value)}"
