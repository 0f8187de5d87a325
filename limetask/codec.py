"""Bytes to messages and back: msgpack for arguments, JSON for everything that other programs may read."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from limetask import ids
from limetask.arguments import decode_arguments
from limetask.errors import MessageRefusedError
from limetask.message import Completion, Envelope, Started, TaskIdentity, TaskMessage, WorkerLost
from limetask.status import ErrorInfo, Status

PROTOCOL_VERSION = 1
# The store's column has 32 bits.
_MAX_ATTEMPT = 2**31 - 1
MSGPACK = "application/msgpack"
JSON = "application/json"


def encode_task(identity: TaskIdentity, body: bytes, *, moved: bool = False) -> Envelope:
    """Return the message that carries one attempt at a task; `body` is from `encode_arguments`.

    `moved` marks one that a worker has put into another queue: it is not moved a second time.
    """
    return Envelope(
        body=body,
        content_type=MSGPACK,
        message_id=new_message_id(),
        reply_to=identity.reply_to,
        headers={
            "limetask": PROTOCOL_VERSION,
            "task_id": identity.task_id,
            "task": identity.task_name,
            "app": identity.app,
            "attempt": identity.attempt,
            **({"moved": True} if moved else {}),
        },
    )


def encode_dead_letter(envelope: Envelope, queue: str, reason: str, died_at: datetime) -> Envelope:
    """Return a message with its reason for being set aside: its body as it was, its own headers under `original`.

    The broker's own headers are left out: `x-death` on a message that is published again has it dropped as a cycle
    by RabbitMQ up to 3.13.
    """
    original = {name: value for name, value in (envelope.headers or {}).items() if not name.startswith("x-")}
    return Envelope(
        body=envelope.body,
        content_type=envelope.content_type,
        message_id=new_message_id(),
        kind="dead-letter",
        reply_to=envelope.reply_to,
        headers={
            "limetask": PROTOCOL_VERSION,
            "reason": reason,
            "queue": queue,
            "died_at": died_at.isoformat(),
            "kind": envelope.kind or "",
            "original": original,
        },
    )


def decode_identity(envelope: Envelope) -> TaskIdentity:
    """Return which task a message is about.

    Raises MessageRefusedError for a message that limetask did not make, or whose id is not its application's.
    """
    headers = envelope.headers or {}
    version = headers.get("limetask")
    if version is None:
        raise MessageRefusedError("not a limetask message: it has no header 'limetask'")
    if version != PROTOCOL_VERSION:
        raise MessageRefusedError(f"made by another version of limetask: protocol {version!r}, not {PROTOCOL_VERSION}")
    task_id, task_name, app = (_text_header(headers, name) for name in ("task_id", "task", "app"))
    attempt = headers.get("attempt")
    if type(attempt) is not int or not 1 <= attempt <= _MAX_ATTEMPT:
        raise MessageRefusedError(f"header 'attempt' is {attempt!r}, not a number from 1")
    if not ids.belongs_to(task_id, app):
        raise MessageRefusedError(f"task id {task_id!r} was not made for application {app!r}")
    return TaskIdentity(task_id, task_name, app, attempt, envelope.reply_to)


def decode_task(identity: TaskIdentity, envelope: Envelope) -> TaskMessage:
    """Return the whole task message; raises MessageRefusedError if its body cannot be read."""
    if envelope.content_type != MSGPACK:
        raise MessageRefusedError(f"content type {envelope.content_type!r}, not {MSGPACK}")
    return TaskMessage(identity, *decode_arguments(envelope.body))


def new_message_id() -> str:
    """Return an id that no other publish has: brokers and clients tell publishes apart by it."""
    return uuid.uuid4().hex


def _text_header(headers: Mapping[str, Any], name: str) -> str:
    value = headers.get(name)
    if not isinstance(value, str) or not value:
        raise MessageRefusedError(f"header {name!r} is {value!r}, not a text")
    return value


def encode_completion(completion: Completion, result: bytes | None = None) -> Envelope:
    """Return the event of a task's end; `result`, if given, is its result, encoded already."""
    return Envelope(
        body=orjson.dumps(
            {
                "id": completion.id,
                "task_id": completion.task_id,
                "task_name": completion.task_name,
                "app": completion.app,
                "status": completion.status,
                "result": completion.result if result is None else orjson.Fragment(result),
                "error": _error_fields(completion.error),
                "attempt": completion.attempt,
                "sent_at": completion.sent_at,
                "started_at": completion.started_at,
                "finished_at": completion.finished_at,
                "worker": completion.worker,
            }
        ),
        content_type=JSON,
        message_id=new_message_id(),
        kind="completion",
    )


def decode_completion(body: bytes) -> Completion:
    """Return the end that an event tells of; raises MessageRefusedError for anything else."""
    with _Refusing("completion"):
        fields = orjson.loads(body)
        return Completion(
            id=_text(fields["id"]),
            task_id=_own_task_id(fields),
            task_name=_text(fields["task_name"]),
            app=fields["app"],
            status=_terminal(fields["status"]),
            result=fields["result"],
            error=_error(fields["error"]),
            attempt=_attempt(fields["attempt"]),
            worker=None if fields["worker"] is None else _text(fields["worker"]),
            sent_at=_moment(fields["sent_at"]),
            started_at=None if fields["started_at"] is None else _moment(fields["started_at"]),
            finished_at=_moment(fields["finished_at"]),
        )


def encode_started(records: Sequence[Started]) -> Envelope:
    """Return one message that tells of all these tasks' starts."""
    return Envelope(body=orjson.dumps(records), content_type=JSON, message_id=new_message_id(), kind="started")


def decode_started(body: bytes) -> list[Started]:
    """Return the starts in a message; raises MessageRefusedError for anything else."""
    with _Refusing("started"):
        return [_started(fields) for fields in orjson.loads(body)]


def _started(fields: dict[str, Any]) -> Started:
    if not isinstance(fields["acks_late"], bool):
        raise TypeError(f"acks_late is {fields['acks_late']!r}")
    return Started(
        task_id=_own_task_id(fields),
        task_name=_text(fields["task_name"]),
        app=fields["app"],
        attempt=_attempt(fields["attempt"]),
        worker=_text(fields["worker"]),
        acks_late=fields["acks_late"],
        sent_at=_moment(fields["sent_at"]),
        started_at=_moment(fields["started_at"]),
    )


def encode_worker_lost(lost: WorkerLost) -> Envelope:
    """Return the message by which a supervisor tells of a dead worker process."""
    return Envelope(body=orjson.dumps(lost), content_type=JSON, message_id=new_message_id(), kind="worker-lost")


def decode_worker_lost(body: bytes) -> WorkerLost:
    """Return which worker process was lost; raises MessageRefusedError for anything else."""
    with _Refusing("worker-lost"):
        fields = orjson.loads(body)
        return WorkerLost(_text(fields["worker"]), _text(fields["reason"]), _moment(fields["lost_at"]))


def valid_text(text: str) -> str:
    """Return a text with what is no valid Unicode replaced: an exception's may hold anything, and JSON only text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def _error_fields(error: ErrorInfo | None) -> dict[str, str] | None:
    if error is None:
        return None
    return {name: valid_text(getattr(error, name)) for name in ("type", "message", "traceback")}


def _error(fields: Any) -> ErrorInfo | None:
    if fields is None:
        return None
    return ErrorInfo(**{name: _text(value) for name, value in fields.items()})


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _attempt(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= _MAX_ATTEMPT:
        raise ValueError(f"{value!r} is no attempt")
    return value


def _own_task_id(fields: Mapping[str, Any]) -> str:
    task_id, app = fields["task_id"], fields["app"]
    if not isinstance(task_id, str) or not isinstance(app, str) or not ids.belongs_to(task_id, app):
        raise ValueError(f"task id {task_id!r} was not made for application {app!r}")
    return task_id


def _terminal(name: str) -> Status:
    status = Status(name)
    if status not in (Status.SUCCESS, Status.FAILURE):
        raise ValueError(f"{name!r} is not the end of a task")
    return status


def _moment(text: Any) -> datetime:
    moment = datetime.fromisoformat(_text(text))
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class _Refusing:
    """Turns whatever a malformed record raises into one MessageRefusedError."""

    kind: str

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, KeyError):
            raise MessageRefusedError(f"not a {self.kind} record: it has no field {error}") from error
        if isinstance(error, ValueError | TypeError | AttributeError | OverflowError):
            raise MessageRefusedError(f"not a {self.kind} record: {error}") from error
