"""What a task returns or publishes, as JSON: everybody who may see it, in any language, can read it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import orjson

from limetask.errors import ResultError, SoftTimeLimitExceeded
from limetask.foreign import error_text, type_name
from limetask.plain import NotPlainError, to_plain, to_plain_key, way_out

# Moments come to `_json_default`: what the code of their time zone raises can be told only there.
_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATETIME
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
        holds_no_number = b"null" in encoded and value is not None and _holds_no_number(value)
    except SoftTimeLimitExceeded:  # of the task that publishes an event
        raise
    except Exception as exc:  # orjson.JSONEncodeError is a TypeError; a value's own code may raise anything
        raise ResultError(f"{what} cannot be expressed as JSON: {_why_no_json(value, exc)}") from exc
    if holds_no_number:
        raise ResultError(f"{what} cannot be expressed as JSON: it holds a NaN or an infinity")
    if len(encoded) > max_bytes:
        raise ResultError(f"{what} takes {len(encoded):,} bytes as JSON and the limit is {max_bytes:,} bytes: {advice}")
    return encoded


def _dumps(value: Any) -> bytes:
    try:
        return orjson.dumps(value, default=_json_default, option=_OPTIONS)
    except TypeError as exc:
        if _KEY_REFUSED not in str(_cause_of(exc)):
            raise
        # Keys never come to `default`.
        return orjson.dumps(_with_plain_keys(value), default=_json_default, option=_OPTIONS)


def _with_plain_keys(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {to_plain_key(key): _with_plain_keys(part) for key, part in value.items()}
    if is_dataclass(value) and not isinstance(value, type):  # as orjson does it
        names = [field.name for field in fields(value) if not field.name.startswith("_")]
        return {name: _with_plain_keys(getattr(value, name)) for name in names}
    return list(map(_with_plain_keys, value)) if isinstance(value, list | tuple) else value


def _why_no_json(value: Any, error: Exception) -> str:
    origin = _cause_of(error)
    if not isinstance(origin, TypeError | RecursionError):
        return f"reading it raises {error_text(origin)}"
    cause = str(origin)
    if _KEY_REFUSED in cause:
        return _strange_key(value) or cause
    return next((ours for theirs, ours in _OUR_WORDS.items() if theirs in cause.lower()), cause)


def _strange_key(value: Any) -> str | None:
    try:
        strange = (key for key in _keys(value) if not _is_json({to_plain_key(key): None}))
        return next(map(_complaint_about_key, strange), None)
    except Exception as exc:  # noqa: BLE001 - of the value's own code
        return f"reading it raises {error_text(exc)}"


def _complaint_about_key(key: Any) -> str:
    expression = "x.decode()" if isinstance(key, bytes) else "str(x)"
    return f"a key is a value of type {type_name(key)}: convert it, such as with {expression}"


def _cause_of(error: BaseException) -> BaseException:
    """Return what `_json_default` raised, which orjson wraps once for each value in a value."""
    cause = error.__cause__
    return error if cause is None or isinstance(error, NotPlainError) else _cause_of(cause)


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
        raise NotPlainError(_complaint(value, exc)) from (None if isinstance(exc, NotPlainError) else exc)
    if _holds_no_number(plain):
        raise TypeError("it holds a NaN or an infinity")
    return plain


def _complaint(value: Any, error: Exception) -> str:
    reason = "" if isinstance(error, NotPlainError) else f" ({error_text(error)})"
    return f"it holds a value of type {type_name(value)}{reason}: convert it, such as with {way_out(value)}"
