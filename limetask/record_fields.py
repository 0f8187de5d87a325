"""The values in a record's JSON: each is what it must be, or the record is refused.

A record that the store would refuse, or with which nobody can reckon, is to be found out here: it stops nothing then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import wraps
from typing import Any, TypeVar

from limetask import ids
from limetask.application import MAX_IDENTIFIER_BYTES
from limetask.codec import MAX_ATTEMPT, is_plain, shown
from limetask.errors import MessageRefusedError
from limetask.handlers import MAX_HANDLER_NAME_BYTES
from limetask.message import MessageKind
from limetask.registry import MAX_TASK_NAME_BYTES
from limetask.status import ErrorInfo, Status
from limetask.topology import MAX_KEY_BYTES

T = TypeVar("T")

_ENDS = {status.value: status for status in (Status.SUCCESS, Status.FAILURE)}

# Of the times that a clock may show, those that every database can keep, in every time zone, and that can be reckoned
# with: a task's id holds the same.
_FIRST_YEAR, _LAST_YEAR = 1970, 9999
_EARLIEST, _LATEST = datetime(_FIRST_YEAR, 1, 1, tzinfo=UTC), datetime(_LAST_YEAR, 12, 31, tzinfo=UTC)
MALFORMED = ValueError, TypeError, AttributeError, LookupError, OverflowError
"""What may be raised of a record in which something is missing, or is not what it must be."""

_LARGEST_NUMBER = 1e12  # seconds: some 30 000 years
_LONGEST_REASON = 500  # characters: a reason is read by people, and travels in a header


def error_of(fields: Any) -> ErrorInfo | None:
    """Return why a task has failed, None if it has not."""
    if fields is None:
        return None
    return ErrorInfo(**{name: text_of(value) for name, value in fields.items()})


def text_of(value: Any) -> str:
    """Return a text."""
    if not isinstance(value, str):
        raise TypeError(f"{shown(value)} is no text")
    return value


def name_of(value: Any) -> str:
    """Return a text that becomes a value of a column: PostgreSQL has no NUL in texts."""
    if type(value) is str and "\x00" not in value:  # as in nearly every record
        return value
    text = text_of(value)
    if "\x00" in text:
        raise ValueError(f"{shown(value)} has a NUL character")
    return text


def task_name_of(value: Any) -> str:
    """Return a task's name: should the task be lost, its failure is published with it in the routing key."""
    if is_plain(value, MAX_TASK_NAME_BYTES):
        return value
    return _short(name_of(value), MAX_TASK_NAME_BYTES)


def handler_name_of(value: Any) -> str:
    """Return the name of an event handler, which becomes part of a queue's."""
    name = _short(name_of(value), MAX_HANDLER_NAME_BYTES)
    if not name.isprintable():
        raise ValueError(f"{shown(name)} cannot be shown")
    return name


def key_of(value: Any) -> str:
    """Return a text that becomes the key of a binding."""
    return _short(name_of(value), MAX_KEY_BYTES)


def _short(value: str, most: int) -> str:
    if not value or len(value) > most or len(value.encode()) > most:
        raise ValueError(f"{value[:40]!r} is empty, or longer than {most} bytes")
    return value


def list_of(value: Any) -> list[Any]:
    """Return a list."""
    if not isinstance(value, list):
        raise TypeError(f"{shown(value)} is no list")
    return value


def truth_of(value: Any) -> bool:
    """Return True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{shown(value)} is neither true nor false")
    return value


def attempt_of(value: Any) -> int:
    """Return the number of an attempt."""
    if type(value) is not int or not 1 <= value <= MAX_ATTEMPT:
        raise ValueError(f"{shown(value)} is no attempt")
    return value


def number_of(value: Any) -> float:
    """Return a number with which others can be compared: no infinity, and nothing that swallows what is added to it."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST_NUMBER:
        raise ValueError(f"{shown(value)} is no number, or too large")
    return float(value)


def task_id_of(value: Any) -> str:
    """Return a task's id, of whatever application."""
    ids.bytes_of(value)
    return text_of(value)


def own_task_id(fields: Mapping[str, Any]) -> str:
    """Return the id of a task that was made for the application that a record names."""
    task_id, app = fields["task_id"], fields["app"]
    if (
        not isinstance(task_id, str)
        or not isinstance(app, str)
        or len(app) > MAX_IDENTIFIER_BYTES  # what belongs together is remembered, which must not take much memory
        or not ids.belongs_to(task_id, app)
    ):
        raise ValueError(f"task id {shown(task_id)} was not made for application {shown(app)}")
    return task_id


def end_of(name: Any) -> Status:
    """Return the status in which a task has ended."""
    status = _ENDS.get(text_of(name))
    if status is None:
        raise ValueError(f"{shown(name)} is not the end of a task")
    return status


def moment_of(text: Any) -> datetime:
    """Return a time in UTC."""
    moment = datetime.fromisoformat(text)  # raises TypeError for what is no text
    if moment.tzinfo is UTC and _FIRST_YEAR <= moment.year < _LAST_YEAR:  # as limetask writes it
        return moment
    if moment.tzinfo is None:
        raise ValueError(f"{shown(text)} has no time zone")
    if not _EARLIEST <= moment <= _LATEST:
        raise ValueError(f"{shown(text)} is not between {_EARLIEST:%Y} and {_LATEST:%Y}")
    return moment if moment.tzinfo is UTC else moment.astimezone(UTC)


def refusing(kind: MessageKind) -> Callable[[Callable[[bytes], T]], Callable[[bytes], T]]:
    """Have a decoder raise one MessageRefusedError for whatever it raises of a malformed record of this kind."""

    def decorate(decode: Callable[[bytes], T]) -> Callable[[bytes], T]:
        @wraps(decode)
        def decode_or_refuse(body: bytes) -> T:
            try:
                return decode(body)
            except KeyError as exc:
                raise MessageRefusedError(f"not a {kind} record: it has no field {exc}") from exc
            except MALFORMED as exc:
                raise MessageRefusedError(f"not a {kind} record: {str(exc)[:_LONGEST_REASON]}") from exc

        return decode_or_refuse

    return decorate
