"""Values of other libraries: what they are as plain ones, and which expression makes a plain one of them.

Libraries are known by what their types have, so that none of them is imported here.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from typing import Any
from uuid import UUID

# numpy's kinds of numbers, truth values, texts and objects: what `tolist` makes of them can be read in one way only.
# https://numpy.org/doc/stable/reference/generated/numpy.dtype.kind.html
_PLAIN_KINDS = "biufUO"
# As JSON each member takes two bytes at least, and no broker takes a message of more than 128 MiB.
_MAX_MEMBERS = 64 * 1024**2

_ANY_WAY = "its text, its key or a dict"
_MINUTE = timedelta(minutes=1)
_BY_KIND = {"b": "bool(x)", "i": "int(x)", "u": "int(x)", "f": "float(x)", "c": "[x.real, x.imag]", "S": "x.decode()"}


class NotPlainError(TypeError):
    """A value is not what JSON knows, and nobody but its owner can say what it should be there."""


def to_plain(value: Any) -> Any:
    """Return a value that JSON does not know as one that it does, or that holds simpler ones; see `encode_json`.

    Raises NotPlainError for what could be read in several ways, and whatever the value's own code does.
    """
    match value:
        case Decimal() | UUID() | PurePath():
            return str(value)
        case datetime() | date() | time() if _is_moment(value):
            return _moment_text(value)
        case float():
            return float(value)
        case tuple():
            return list(value)
        case Mapping():
            return {to_plain_key(key): part for key, part in value.items()}
    if _is_pydantic_model(value):
        return value.model_dump(mode="json")
    if _is_numpy(value) and value.dtype.kind in _PLAIN_KINDS:
        return _numpy_to_plain(value)
    raise NotPlainError("it can be read in several ways")


def to_plain_key(key: Any) -> Any:
    """Return a key of another library's type as a plain one, if it can be read in one way only."""
    if _is_numpy(key) and key.dtype.kind in "biuf":
        return key.item()
    is_own_float = isinstance(key, float) and type(key) is not float
    return to_plain(key) if is_own_float or isinstance(key, datetime | date | PurePath) else key


def way_out(value: Any) -> str:
    """Return the expression that makes a plain value of `x`, for messages, whatever its own code raises."""
    try:
        return _way_out(value)
    except Exception:  # noqa: BLE001 - a lazy object's, when it is asked what it is
        return _ANY_WAY


def _way_out(value: Any) -> str:
    if isinstance(value, type):
        return "x.__name__"
    if _is_numpy(value) and not value.shape:
        return _BY_KIND.get(value.dtype.kind, "str(x)")
    return next((expression for fits, expression in _WAYS if fits(value)), _ANY_WAY)


def _is_moment(value: datetime | date | time) -> bool:
    """Return False for pandas' NaT, a datetime that is none, and a time whose zone JSON would lose."""
    return value == value and (not isinstance(value, time) or value.tzinfo is None)


def _moment_text(value: datetime | date | time) -> str:
    """Return a moment as text: where the clocks had an offset with seconds, which RFC 3339 has not, it is in UTC."""
    offset = value.utcoffset() if isinstance(value, datetime) else None
    if isinstance(value, datetime) and offset is not None and offset % _MINUTE:
        return value.astimezone(UTC).isoformat()
    return value.isoformat()


def _is_pydantic_model(value: Any) -> bool:
    """Return False for Pydantic's URLs and secrets as well, which have a serializer and no `model_dump`."""
    kind = type(value)
    return hasattr(kind, "__pydantic_serializer__") and hasattr(kind, "model_dump") and not isinstance(value, type)


def _is_numpy(value: Any) -> bool:
    """Return True for numpy's arrays and numbers: pandas' and PyTorch's have no `__array_interface__`."""
    return hasattr(type(value), "__array_interface__") and hasattr(value, "dtype")


def _numpy_to_plain(value: Any) -> Any:
    if value.size > _MAX_MEMBERS:
        raise NotPlainError(f"it has {value.size:,} members")
    is_long_double = value.dtype.kind == "f" and value.dtype.itemsize > 8
    return (value.astype("float64") if is_long_double else value).tolist()


def _has(*names: str) -> Callable[[Any], bool]:
    """Return a test for a type's attributes: a value's own may be anything, as those of a lazy object are."""
    return lambda value: all(hasattr(type(value), name) for name in names)


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds)


def _is_text(value: Any) -> bool:
    """Return True for `collections.UserString` and lazy translations: texts alone can be searched and formatted."""
    return isinstance(value, str) or _has("__mod__", "__contains__")(value)


# The first that fits counts.
_WAYS: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (_is(Enum), "x.value"),
    (_has("model_dump"), "x.model_dump()"),
    (_has("__fields__", "dict"), "x.dict()"),
    (_has("get_secret_value"), "str(x), which hides it, or x.get_secret_value(), which everybody can read then"),
    (_has("unicode_string"), "str(x)"),  # Pydantic's URLs
    (_has("__struct_fields__"), "msgspec.to_builtins(x)"),
    (_has("__attrs_attrs__"), "attrs.asdict(x)"),
    (is_dataclass, "dataclasses.asdict(x)"),
    (_has("to_dict", "columns"), "x.to_dict('records')"),
    (_has("tolist"), "x.tolist()"),
    (_has("_meta", "pk"), "x.pk"),
    (_has("to_dict"), "x.to_dict()"),
    (_is(complex), "[x.real, x.imag]"),
    (_is(Fraction), "float(x)"),
    (_is(timedelta), "x.total_seconds()"),
    (_is(bytes, bytearray), "x.decode(), or base64.b64encode(x).decode()"),
    (_is(memoryview), "bytes(x)"),
    (_is(set, frozenset), "sorted(x)"),
    (_is(Mapping), "dict(x)"),
    (_is(int, PurePath, BaseException, UUID, datetime, date, time), "str(x)"),
    (inspect.isawaitable, "await x"),
    (_has("read", "readline"), "x.read(), or the file's name"),
    (_is(itertools.count, itertools.cycle, itertools.repeat), "list(itertools.islice(x, 10))"),  # most never end
    (_is_text, "str(x)"),
    (_is(Iterable), "list(x)"),
)
