"""Ids. Those of tasks are UUIDs of version 8 that know their age and their application.

    48 bits   Unix time in milliseconds, so that ids sort by age
     4 bits   version (8)
    12 bits   random
     2 bits   variant
    38 bits   random
    24 bits   a hash of the time, the random bits and the application's name

The tag is no secret. It makes PENDING cost nothing: an id without a row in the store is pending if the tag fits
the application that asks, and unknown if it does not.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import time
import uuid
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b

_FORM = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_TEXT_LENGTH = 36
_TIME_BYTES, _RANDOM_BYTES, _TAG_BYTES = 6, 7, 3
_TAGGED_BYTES = _TIME_BYTES + _RANDOM_BYTES
# What is hashed is the whole id, with a tag of zeros, and the name. To copy a hash of nothing is the fastest beginning.
_NO_TAG = bytes(_TAG_BYTES)
_NOTHING_HASHED = blake2b(digest_size=_TAG_BYTES)
_VERSION_AND_VARIANT = (0x8 << 52) | (0b10 << 38)
_RANDOM_BITS_MASK = (0xFFF << 40) | ((1 << 38) - 1)
_EPOCH = datetime.fromtimestamp(0, UTC)
_LAST_TIME = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp() * 1000).to_bytes(_TIME_BYTES)


def new_task_id(app: str, now: float | None = None) -> str:
    """Return a fresh id for a task of the application `app`; `now` is in Unix seconds, the clock's by default."""
    milliseconds = int((time.time() if now is None else now) * 1000)
    random_bits = int.from_bytes(os.urandom(_RANDOM_BYTES)) & _RANDOM_BITS_MASK
    tagged = ((milliseconds << 8 * _RANDOM_BYTES) | _VERSION_AND_VARIANT | random_bits).to_bytes(_TAGGED_BYTES)
    return _text(tagged + _tag(tagged, app))


def belongs_to(task_id: str, app: str) -> bool:
    """Return True if `task_id` is well formed, in the canonical lower-case form, and was made for `app`."""
    return _may_be_id(task_id) and _was_made_for(task_id, app)


def canonical(task_id: object) -> str | None:
    """Return an id in the canonical lower-case form, None for what is no UUID, as text or as `uuid.UUID`."""
    match task_id:
        case uuid.UUID():
            return str(task_id)
        case str() if _FORM.fullmatch(task_id):
            return task_id
        case str():
            with contextlib.suppress(ValueError):
                return str(uuid.UUID(task_id.strip()))
    return None


def sent_at(task_id: str) -> datetime:
    """Return when the id was made, in UTC, exact to the millisecond. Raises ValueError if it is malformed."""
    return _EPOCH + timedelta(microseconds=1000 * int.from_bytes(bytes_of(task_id)[:_TIME_BYTES]))


def bytes_of(task_id: str) -> bytes:
    """Return the 16 bytes of an id. Raises ValueError if it is malformed."""
    parsed = _parse(task_id) if _may_be_id(task_id) else None
    if parsed is None:
        raise ValueError(f"{task_id!r} is not a task id")
    return parsed


def oldest_id(moment: datetime) -> str:
    """Return the smallest UUID, as text, that an id made at `moment` can have: ids below it are older."""
    return str(uuid.UUID(int=max(0, int(moment.timestamp() * 1000)) << 80))


def new_message_id() -> str:
    """Return an id that no other publish has: brokers and clients tell publishes apart by it."""
    return _unique.message_id()


def new_event_id() -> str:
    """Return a UUID, as text, that no other event has: subscribers know by it an event that comes twice."""
    return _unique.event_id()


def _may_be_id(task_id: object) -> bool:
    """Return False for what is not even worth remembering."""
    return isinstance(task_id, str) and len(task_id) == _TEXT_LENGTH


# The recorder hears of each task twice or more, with some thousands of others in between at most.
@lru_cache(maxsize=4096)
def _was_made_for(task_id: str, app: str) -> bool:
    parsed = _parse(task_id)
    return parsed is not None and parsed[_TAGGED_BYTES:] == _tag(parsed[:_TAGGED_BYTES], app)


# A worker looks at each id three times in a row.
@lru_cache(maxsize=1024)
def _parse(task_id: str) -> bytes | None:
    """Return the bytes of a well-formed id, whatever its tag, None for every other text."""
    if _FORM.fullmatch(task_id) is None:
        return None
    parsed = bytes.fromhex(task_id.replace("-", ""))
    return parsed if parsed[:_TIME_BYTES] <= _LAST_TIME else None


def _tag(tagged: bytes, app: str) -> bytes:
    tag = _NOTHING_HASHED.copy()
    tag.update(tagged + _NO_TAG + app.encode("utf-8", "surrogatepass"))
    return tag.digest()


def _text(id_bytes: bytes) -> str:
    digits = id_bytes.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class _Unique:
    """Ids that begin otherwise in every process, and count within one. They are no secrets. Thread-safe.

    Random bits for each id would be a system call for each, and some machines are slow at that.
    """

    def __init__(self) -> None:
        own = uuid.uuid4()
        self.process_id = os.getpid()
        self._message_prefix = own.hex[:20]
        # Of version 8, whose bits mean what its makers say.
        self._event_prefix = f"{str(own)[:14]}8{str(own)[15:24]}"
        self._count = itertools.count()

    def message_id(self) -> str:
        return f"{self._message_prefix}{next(self._count):012x}"

    def event_id(self) -> str:
        return f"{self._event_prefix}{next(self._count):012x}"


_unique = _Unique()


def begin_in_this_process() -> None:
    """Make sure that a forked process shares no ids with its parent: not all that fork run Python's hooks.

    uWSGI does not. So it is for whoever opens something for this process to call this; to compare the process for each
    id would be a system call for each.
    """
    if _unique.process_id != os.getpid():
        _begin_anew()


def _begin_anew() -> None:
    global _unique
    _unique = _Unique()


if hasattr(os, "register_at_fork"):  # a process may have the number of an ancestor that has ended
    os.register_at_fork(after_in_child=_begin_anew)
