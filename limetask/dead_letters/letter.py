"""What a dead letter is, and how it is read from a message."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from limetask.amqp import Delivery
from limetask.arguments import decode_arguments
from limetask.codec import decode_identity
from limetask.dead_letters.headers import broker_deaths, death_of, message_of, number, text, without_the_brokers
from limetask.errors import MessageRefusedError
from limetask.events import decode_event
from limetask.message import RECORD_KINDS, Completion, Envelope, MessageKind, Started, TaskIdentity
from limetask.records import (
    decode_claim,
    decode_completion,
    decode_refused,
    decode_released,
    decode_started,
    decode_worker_lost,
)
from limetask.topology import Names

Kind = Literal["task", "record", "event", "foreign"]

# Other types say nothing: a client may give every message one.
_NO_TASKS = frozenset(MessageKind)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What is known of one dead letter.

    `id` is the same at every look. `kind` is "task", "record" (what the recorder is told), "event" (what an event
    handler did not handle) or "foreign" (limetask did not make it, or cannot tell). `attempt` is the attempt that died;
    `error` is the one that a record or an event tells of. `queue` is where the message waited when it died.
    `first_died_at` and `deaths` cover earlier attempts that were retried from here. Times are aware, in UTC. `size` is
    the body's, in bytes. `record` is what kind of record it is: "started", "completion", "claim" and so on. What is not
    known is None.
    """

    id: str
    kind: Kind
    task_id: str | None
    task_name: str | None
    app: str | None
    attempt: int | None
    reason: str
    error: str | None
    queue: str | None
    first_died_at: datetime | None
    last_died_at: datetime | None
    deaths: int
    size: int
    record: str | None = None


@dataclass(frozen=True, slots=True)
class DeadLetterContent:
    """A dead letter with its message, as it was before it died.

    `args` and `kwargs` are a task's arguments; if they cannot be read both are None and `undecodable` says why.
    `headers` are the message's own. `body` is the message's body as it is.
    """

    letter: DeadLetter
    args: Sequence[Any] | None
    kwargs: Mapping[str, Any] | None
    undecodable: str | None
    headers: Mapping[str, Any]
    body: bytes


@dataclass(frozen=True, slots=True)
class Found:
    """A letter taken apart: what is shown of it, and what a retry needs. `identity` is None if it is no task."""

    delivery: Delivery
    letter: DeadLetter
    message: Envelope
    identity: TaskIdentity | None


@dataclass(frozen=True, slots=True)
class _About:
    """Which task a message is about, as far as it tells: it may be foreign."""

    task_id: str | None = None
    task_name: str | None = None
    app: str | None = None
    attempt: int | None = None
    error: str | None = None


def opened(delivery: Delivery, names: Names) -> Found:
    """Take a letter apart. Never fails: anything may be in a letter."""
    envelope = delivery.envelope
    was_set_aside = delivery.exchange in (b"", names.dead_exchange.encode())
    message = message_of(envelope, was_set_aside=was_set_aside)
    death = death_of(envelope, message, was_set_aside=was_set_aside)
    identity = _identity_of(message, names, death.queue)
    kind = _kind_of(message, names, death.queue, identity)
    about = _about(message, kind)
    letter = DeadLetter(
        id=_letter_id(envelope),
        kind=kind,
        task_id=about.task_id,
        task_name=about.task_name,
        app=about.app,
        attempt=about.attempt,
        reason=death.reason,
        error=about.error,
        queue=death.queue,
        first_died_at=death.first,
        last_died_at=death.last,
        deaths=death.count,
        size=len(envelope.body),
        record=message.kind if kind == "record" else None,
    )
    return Found(delivery, letter, message, identity)


def content(found: Found) -> DeadLetterContent:
    """Return a letter with its message, whether or not its arguments can be read."""
    args: Sequence[Any] | None = None
    kwargs: Mapping[str, Any] | None = None
    undecodable: str | None = None
    try:
        args, kwargs = decode_arguments(found.message.body)
    except MessageRefusedError as exc:
        undecodable = str(exc)
    return DeadLetterContent(found.letter, args, kwargs, undecodable, found.message.headers or {}, found.message.body)


def _identity_of(message: Envelope, names: Names, queue: str | None) -> TaskIdentity | None:
    if queue == names.results_queue or message.kind in _NO_TASKS or (queue and names.is_handler_queue(queue)):
        return None
    try:
        return decode_identity(message)
    except MessageRefusedError:
        return None


def _kind_of(message: Envelope, names: Names, queue: str | None, identity: TaskIdentity | None) -> Kind:
    if queue is not None and names.is_handler_queue(queue):
        return "event"
    if identity is not None:
        return "task"
    return "record" if _is_record(message, names, queue) else "foreign"


def _is_record(message: Envelope, names: Names, queue: str | None) -> bool:
    return queue == names.results_queue and message.kind in RECORD_KINDS


def _about(message: Envelope, kind: Kind) -> _About:
    if kind == "record":
        return _about_record(message)
    if kind == "event":
        return _about_event(message)
    headers = message.headers or {}
    return _About(
        text(headers.get("task_id")),
        text(headers.get("task")),
        text(headers.get("app")),
        number(headers.get("attempt")),
    )


def _about_event(message: Envelope) -> _About:
    try:
        event = decode_event(message)
    except MessageRefusedError:
        return _About()
    error = None if event.error is None else f"{event.error.type}: {event.error.message}"
    return _About(event.task_id, event.task_name, event.app, event.attempt, error)


def _about_record(message: Envelope) -> _About:
    """Return which task a record is about; some are about several tasks or none."""
    about = _ABOUT_RECORDS.get(message.kind or "")
    try:
        return _About() if about is None else about(message.body)
    except MessageRefusedError:
        return _About()


def _about_end(end: Completion) -> _About:
    error = None if end.error is None else f"{end.error.type}: {end.error.message}"
    return _About(end.task_id, end.task_name, end.app, end.attempt, error)


def _about_starts(body: bytes) -> _About:
    starts = decode_started(body)
    return _about_start(starts[0]) if len(starts) == 1 else _About()


def _about_start(start: Started) -> _About:
    return _About(start.task_id, start.task_name, start.app, start.attempt)


def _about_released(body: bytes) -> _About:
    released = decode_released(body)
    return _About(task_id=released.task_id, attempt=released.attempt)


def _about_lost(body: bytes) -> _About:
    lost = decode_worker_lost(body)
    return _About(error=f"worker {lost.worker}: {lost.reason}")


_ABOUT_RECORDS: dict[str, Callable[[bytes], _About]] = {
    MessageKind.COMPLETION: lambda body: _about_end(decode_completion(body)),
    MessageKind.REFUSED: lambda body: _about_end(decode_refused(body).end),
    MessageKind.STARTED: _about_starts,
    MessageKind.CLAIM: lambda body: _about_start(decode_claim(body).start),
    MessageKind.RELEASED: _about_released,
    MessageKind.WORKER_LOST: _about_lost,
}


def _letter_id(envelope: Envelope) -> str:
    """Return a letter's id: a hash of everything that a look does not change, as the count of deliveries is."""
    headers = envelope.headers or {}
    parts = (
        envelope.message_id,
        envelope.kind,
        envelope.content_type,
        sorted((repr(name), repr(value)) for name, value in without_the_brokers(headers).items()),
        [(death.get("queue"), death.get("reason"), repr(death.get("time"))) for death in broker_deaths(envelope)],
    )
    hashed = hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass"))
    hashed.update(envelope.body)
    return hashed.hexdigest()[:16]
