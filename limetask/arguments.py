"""A task's arguments as msgpack, with extension types for what Python programs pass around."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgpack

from limetask.errors import ArgumentsError, MessageRefusedError, MessageTooLargeError, SoftTimeLimitExceeded
from limetask.foreign import type_name
from limetask.refused_arguments import UNKNOWN_TYPE, explain_arguments

_DATETIME, _DATE, _TIME, _TIMEDELTA, _DECIMAL, _UUID, _SET, _FROZENSET = range(1, 9)

MAX_NESTING = 500
"""How deep lists and maps may be nested in a task's arguments."""

_TOO_DEEP = f"nested more than {MAX_NESTING} levels deep"
# All bytes but those with which msgpack begins a list or a map.
_NO_CONTAINERS = bytes(byte for byte in range(256) if not (0x80 <= byte <= 0x9F or 0xDC <= byte <= 0xDF))
_TEXTS = frozenset({str})
# Has msgpack make an aware datetime of its own standard type for moments, as other languages send it.
_AS_DATETIME = 3

_UNPACK_ERRORS = (
    ValueError,  # includes UnicodeDecodeError, msgpack.FormatError, msgpack.StackError, msgpack.ExtraData
    TypeError,  # an unhashable key of a map
    ArithmeticError,  # a Decimal that is none
    msgpack.UnpackException,
    RecursionError,
)


def encode_arguments(args: Sequence[Any], kwargs: Mapping[str, Any], max_bytes: int) -> bytes:
    """Return a task message's body.

    Raises ArgumentsError, which says which argument it is, for what msgpack and our extensions cannot carry or whose
    own code raises an error, and MessageTooLargeError for more than `max_bytes`.
    """
    try:
        body = _pack({"args": args, "kwargs": kwargs})
        is_too_deep = len(body) > MAX_NESTING and _is_too_deep(body, (args, kwargs))
    except SoftTimeLimitExceeded:  # of the task that sends
        raise
    except Exception as exc:  # a value's own code may raise anything
        raise ArgumentsError(explain_arguments(args, kwargs, exc, _pack)) from exc
    if is_too_deep:
        raise ArgumentsError(f"the arguments are {_TOO_DEEP}, which a task message cannot carry")
    if len(body) > max_bytes:
        raise MessageTooLargeError(
            f"the arguments take {len(body):,} bytes and the limit is {max_bytes:,} bytes: send a reference (a file's "
            "name, a record's id) instead of the data, or raise LIMETASK_MAX_ARGUMENTS_BYTES"
        )
    return body


def decode_arguments(body: bytes) -> tuple[list[Any], dict[str, Any]]:
    """Return the positional and the named arguments; raises MessageRefusedError if `body` is not such.

    One of the two may be missing or null, as programs in other languages leave out what is empty.
    """
    try:
        fields = _unpack_body(body)
    except _UNPACK_ERRORS as exc:
        raise MessageRefusedError(f"the body is not valid msgpack: {str(exc) or type(exc).__name__}") from exc
    if not isinstance(fields, dict) or ("args" not in fields and "kwargs" not in fields):
        raise MessageRefusedError("the body is not {args, kwargs}")
    args, kwargs = fields.get("args"), fields.get("kwargs")
    args, kwargs = [] if args is None else args, {} if kwargs is None else kwargs
    if not isinstance(args, list) or not isinstance(kwargs, dict) or not _TEXTS.issuperset(map(type, kwargs)):
        raise MessageRefusedError("the body is not {args, kwargs}: a list, and a map whose keys are texts")
    if len(body) > MAX_NESTING and _is_too_deep(body, (args, kwargs)):
        raise MessageRefusedError(f"the body is {_TOO_DEEP}")
    return args, kwargs


def _is_too_deep(body: bytes, value: Any) -> bool:
    """Return True if a value is nested more deeply than what is done with it later can follow.

    Its bytes are counted first that may begin a list or a map: hardly a message has so many.
    """
    return (
        len(body) > MAX_NESTING
        and len(body.translate(None, _NO_CONTAINERS)) > MAX_NESTING
        and is_deeper(value, MAX_NESTING)
    )


def is_deeper(value: Any, levels: int) -> bool:
    """Return True if lists and maps are nested in a value on more than so many levels, the value itself not counted."""
    level = [value]
    for _ in range(levels + 1):
        level = [
            part
            for whole in level
            for part in (whole.values() if isinstance(whole, dict) else whole)
            if isinstance(part, list | tuple | dict)
        ]
        if not level:
            return False
    return True


def _pack(value: Any, depth: int = 0) -> bytes:
    packed: bytes = msgpack.packb(value, default=_PACK_EXTENSION[depth], use_bin_type=True)
    return packed


def _unpack_body(body: bytes) -> Any:
    try:
        return _unpack(body)
    except TypeError:  # an unhashable key
        return _unpack(body, tuple_keys=True)


def _unpack(body: bytes, depth: int = 0, *, tuple_keys: bool = False) -> Any:
    """Unpack; with `tuple_keys` also maps whose keys are lists, which can only have been tuples (it takes longer)."""
    return msgpack.unpackb(
        body,
        ext_hook=(_UNPACK_EXTENSION_WITH_TUPLE_KEYS if tuple_keys else _UNPACK_EXTENSION)[depth],
        object_pairs_hook=_dict_with_tuple_keys if tuple_keys else None,
        raw=False,
        strict_map_key=False,
        timestamp=_AS_DATETIME,
    )


def _dict_with_tuple_keys(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    return {_hashable(key): value for key, value in pairs}


def _pack_extension(depth: int, value: Any) -> msgpack.ExtType:
    match value:
        case datetime():
            return msgpack.ExtType(_DATETIME, _datetime_text(value).encode())
        case date():
            return msgpack.ExtType(_DATE, value.isoformat().encode())
        case time():
            return msgpack.ExtType(_TIME, _time_text(value).encode())
        case timedelta():
            return msgpack.ExtType(_TIMEDELTA, _pack([value.days, value.seconds, value.microseconds], depth))
        case Decimal():
            return msgpack.ExtType(_DECIMAL, str(value).encode())
        case uuid.UUID():
            return msgpack.ExtType(_UUID, value.bytes)
        case set():
            return msgpack.ExtType(_SET, _pack(list(value), _deeper(depth)))
        case frozenset():
            return msgpack.ExtType(_FROZENSET, _pack(list(value), _deeper(depth)))
        case int():
            raise TypeError("a whole number of more than 64 bits")
    raise TypeError(f"{UNKNOWN_TYPE} {type_name(value)}")


def _unpack_extension(depth: int, tuple_keys: bool, code: int, data: bytes) -> Any:
    match code:
        case 1:
            return _datetime_from_text(data.decode())
        case 2:
            return date.fromisoformat(data.decode())
        case 3:
            return time.fromisoformat(data.decode())
        case 4:
            days, seconds, microseconds = msgpack.unpackb(data)
            return timedelta(days, seconds, microseconds)
        case 5:
            return Decimal(data.decode())
        case 6:
            return uuid.UUID(bytes=data)
        case 7:
            return set(map(_hashable, _unpack(data, _deeper(depth), tuple_keys=tuple_keys)))
        case 8:
            return frozenset(map(_hashable, _unpack(data, _deeper(depth), tuple_keys=tuple_keys)))
    raise ValueError(f"unknown extension type {code}")


# Each level of sets in sets is a call of msgpack within msgpack, in C: without a limit a hostile message, or a set in
# a set in a set, would take the process down.
_MAX_DEPTH = 16
_PACK_EXTENSION = [partial(_pack_extension, depth) for depth in range(_MAX_DEPTH)]
_UNPACK_EXTENSION = [partial(_unpack_extension, depth, False) for depth in range(_MAX_DEPTH)]
_UNPACK_EXTENSION_WITH_TUPLE_KEYS = [partial(_unpack_extension, depth, True) for depth in range(_MAX_DEPTH)]


def _deeper(depth: int) -> int:
    if depth + 1 == _MAX_DEPTH:
        raise ValueError(f"sets are nested more than {_MAX_DEPTH - 1} deep")
    return depth + 1


def _hashable(member: Any) -> Any:
    # msgpack has one kind of list, and a set can only have held a tuple.
    return tuple(map(_hashable, member)) if isinstance(member, list) else member


def _datetime_text(value: datetime) -> str:
    if value.utcoffset() is None:
        raise TypeError("a datetime without a time zone: give it one, such as datetime.now(UTC)")
    zone = value.tzinfo.key if isinstance(value.tzinfo, ZoneInfo) else None
    return value.isoformat() + (f"[{zone}]" if zone else "")


def _datetime_from_text(text: str) -> datetime:
    moment, _, zone = text.partition("[")
    value = datetime.fromisoformat(moment)
    if not zone:
        return value
    try:
        return _in_zone(value, ZoneInfo(zone.removesuffix("]")))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return value  # this machine does not know the zone; the moment is right all the same


def _in_zone(value: datetime, zone: ZoneInfo) -> datetime:
    """Return the same moment in `zone`, where one time on the wall clock may be two moments."""
    for fold in (0, 1):
        candidate = value.replace(tzinfo=zone, fold=fold)
        if candidate.utcoffset() == value.utcoffset():
            return candidate
    return value.astimezone(zone)


def _time_text(value: time) -> str:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise TypeError("a time in a zone whose offset depends on the date: send a datetime")
    return value.isoformat()
