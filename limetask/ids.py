"""Task ids: UUIDs of version 8 that know their age and their application.

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

import os
import time
import uuid
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

_TAG_BITS = 24
_TAG_MASK = (1 << _TAG_BITS) - 1
_VERSION_AND_VARIANT = (0x8 << 76) | (0b10 << 62)
_VERSION_AND_VARIANT_MASK = (0xF << 76) | (0b11 << 62)
_LAST_MILLISECOND = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp() * 1000)
_RANDOM_BITS_MASK = ((0xFFF << 64) | ((1 << 62) - 1)) & ~_TAG_MASK


def new_task_id(app: str, now: float | None = None) -> str:
    """Return a fresh id for a task of the application `app`; `now` is in Unix seconds, the clock's by default."""
    milliseconds = int((time.time() if now is None else now) * 1000)
    random_bits = int.from_bytes(os.urandom(10), "big") & _RANDOM_BITS_MASK
    untagged = (milliseconds << 80) | _VERSION_AND_VARIANT | random_bits
    return str(uuid.UUID(int=untagged | _tag(untagged, app)))


def belongs_to(task_id: str, app: str) -> bool:
    """Return True if `task_id` is well formed, in the canonical lower-case form, and was made for `app`."""
    number = _parse(task_id)
    return number is not None and number & _TAG_MASK == _tag(number & ~_TAG_MASK, app)


def sent_at(task_id: str) -> datetime:
    """Return when the id was made, in UTC, exact to the millisecond. Raises ValueError if it is malformed."""
    number = _parse(task_id)
    if number is None:
        raise ValueError(f"{task_id!r} is not a task id")
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=number >> 80)


def oldest_id(moment: datetime) -> str:
    """Return the smallest UUID, as text, that an id made at `moment` can have: ids below it are older."""
    return str(uuid.UUID(int=max(0, int(moment.timestamp() * 1000)) << 80))


def _parse(task_id: str) -> int | None:
    try:
        parsed = uuid.UUID(task_id)
    except (ValueError, AttributeError, TypeError):
        return None
    number = parsed.int
    if (
        str(parsed) != task_id
        or number >> 80 > _LAST_MILLISECOND
        or number & _VERSION_AND_VARIANT_MASK != _VERSION_AND_VARIANT
    ):
        return None
    return number


def _tag(untagged: int, app: str) -> int:
    digest = blake2b(untagged.to_bytes(16, "big") + app.encode("utf-8", "surrogatepass"), digest_size=_TAG_BITS // 8)
    return int.from_bytes(digest.digest(), "big")
