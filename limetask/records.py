"""What the recorder reads: JSON to values and back. A task's end is an event as well, so other programs read it too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from limetask import ids
from limetask.codec import JSON, MAX_ATTEMPT, new_message_id, valid_text
from limetask.errors import MessageRefusedError
from limetask.message import (
    Alive,
    Begun,
    Claim,
    Completion,
    Decision,
    Echo,
    Envelope,
    HandlerBindings,
    HandlerGone,
    Released,
    Returned,
    Started,
    Verdict,
    WorkerLost,
)
from limetask.status import ErrorInfo, Status

_ENDS = {status.value: status for status in (Status.SUCCESS, Status.FAILURE)}


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
    return Started(
        task_id=_own_task_id(fields),
        task_name=_text(fields["task_name"]),
        app=fields["app"],
        attempt=_attempt(fields["attempt"]),
        worker=_text(fields["worker"]),
        acks_late=_truth(fields["acks_late"]),
        sent_at=_moment(fields["sent_at"]),
        started_at=_moment(fields["started_at"]),
    )


def encode_claim(claim: Claim) -> Envelope:
    """Return the message by which a worker asks whether it may run a task."""
    return Envelope(body=orjson.dumps(claim), content_type=JSON, message_id=new_message_id(), kind="claim")


def decode_claim(body: bytes) -> Claim:
    """Return the claim in a message; raises MessageRefusedError for anything else."""
    with _Refusing("claim"):
        fields = orjson.loads(body)
        return Claim(
            start=_started(fields["start"]),
            may_run_again=_truth(fields["may_run_again"]),
            reply_to=_text(fields["reply_to"]),
            may_begin_elsewhere=_truth(fields["may_begin_elsewhere"]),
        )


def encode_verdict(verdict: Verdict) -> Envelope:
    """Return the recorder's answer to a claim."""
    return Envelope(body=orjson.dumps(verdict), content_type=JSON, message_id=new_message_id(), kind="verdict")


def decode_verdict(body: bytes) -> Verdict:
    """Return the verdict in a message; raises MessageRefusedError for anything else."""
    with _Refusing("verdict"):
        fields = orjson.loads(body)
        return Verdict(
            task_id=_text(fields["task_id"]),
            attempt=_attempt(fields["attempt"]),
            started_at=_moment(fields["started_at"]),
            decision=Decision(fields["decision"]),
            begun=int(fields["begun"]),
            worker=None if fields["worker"] is None else _text(fields["worker"]),
        )


def encode_released(released: Released) -> Envelope:
    """Return the message by which a worker takes back the start of a task that has not begun."""
    return Envelope(body=orjson.dumps(released), content_type=JSON, message_id=new_message_id(), kind="released")


def decode_released(body: bytes) -> Released:
    """Return who takes which start back; raises MessageRefusedError for anything else."""
    with _Refusing("released"):
        fields = orjson.loads(body)
        return Released(
            task_id=_text(fields["task_id"]),
            attempt=_attempt(fields["attempt"]),
            worker=_text(fields["worker"]),
            started_at=_moment(fields["started_at"]),
        )


def encode_returned(returned: Returned) -> Envelope:
    """Return the message by which a worker lets go of tasks that it has not started."""
    return Envelope(body=orjson.dumps(returned), content_type=JSON, message_id=new_message_id(), kind="returned")


def decode_returned(body: bytes) -> Returned:
    """Return which tasks a worker lets go of; raises MessageRefusedError for anything else."""
    with _Refusing("returned"):
        tasks = orjson.loads(body)["tasks"]
        return Returned([(_text(task_id), _attempt(attempt)) for task_id, attempt in tasks])


def encode_alive(alive: Alive) -> Envelope:
    """Return the message by which a supervisor gives a sign of life."""
    return Envelope(body=orjson.dumps(alive), content_type=JSON, message_id=new_message_id(), kind="alive")


def decode_alive(body: bytes) -> Alive:
    """Return whose sign of life it is; raises MessageRefusedError for anything else."""
    with _Refusing("alive"):
        fields = orjson.loads(body)
        workers = {worker: None if held is None else [*map(_text, held)] for worker, held in fields["workers"].items()}
        return Alive(_moment(fields["seen_at"]), workers)


def encode_echo(echo: Echo) -> Envelope:
    """Return the message that a recorder sends to itself."""
    return Envelope(body=orjson.dumps(echo), content_type=JSON, message_id=new_message_id(), kind="echo")


def decode_echo(body: bytes) -> Echo:
    """Return which recorder sent this to itself, and when; raises MessageRefusedError for anything else."""
    with _Refusing("echo"):
        fields = orjson.loads(body)
        return Echo(_text(fields["recorder"]), float(fields["sent_at"]))


def encode_worker_lost(lost: WorkerLost) -> Envelope:
    """Return the message by which a supervisor tells of a worker process that has ended."""
    return Envelope(body=orjson.dumps(lost), content_type=JSON, message_id=new_message_id(), kind="worker-lost")


def decode_worker_lost(body: bytes) -> WorkerLost:
    """Return which worker process was lost; raises MessageRefusedError for anything else."""
    with _Refusing("worker-lost"):
        fields = orjson.loads(body)
        begun = None if fields["begun"] is None else [*map(_begun, fields["begun"])]
        return WorkerLost(_text(fields["worker"]), _text(fields["reason"]), _moment(fields["lost_at"]), begun)


def _begun(fields: dict[str, Any]) -> Begun:
    exceeded = fields["exceeded"]
    return Begun(_text(fields["task_id"]), _attempt(fields["attempt"]), None if exceeded is None else float(exceeded))


def encode_handlers(handlers: Sequence[HandlerBindings]) -> Envelope:
    """Return the message by which a worker tells of the event handlers that it has bound."""
    return Envelope(body=orjson.dumps(handlers), content_type=JSON, message_id=new_message_id(), kind="handlers")


def decode_handlers(body: bytes) -> list[HandlerBindings]:
    """Return the handlers in a message; raises MessageRefusedError for anything else."""
    with _Refusing("handlers"):
        return [
            HandlerBindings(_text(fields["name"]), [*map(_text, fields["bindings"])], _moment(fields["declared_at"]))
            for fields in orjson.loads(body)
        ]


def encode_handler_gone(gone: HandlerGone) -> Envelope:
    """Return the message by which whoever has deleted a handler's queue tells of it."""
    return Envelope(body=orjson.dumps(gone), content_type=JSON, message_id=new_message_id(), kind="handler-gone")


def decode_handler_gone(body: bytes) -> HandlerGone:
    """Return which handler is gone; raises MessageRefusedError for anything else."""
    with _Refusing("handler-gone"):
        fields = orjson.loads(body)
        return HandlerGone(_text(fields["name"]), _moment(fields["gone_at"]))


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


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def _attempt(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= MAX_ATTEMPT:
        raise ValueError(f"{value!r} is no attempt")
    return value


def _own_task_id(fields: Mapping[str, Any]) -> str:
    task_id, app = fields["task_id"], fields["app"]
    if not isinstance(task_id, str) or not isinstance(app, str) or not ids.belongs_to(task_id, app):
        raise ValueError(f"task id {task_id!r} was not made for application {app!r}")
    return task_id


def _terminal(name: str) -> Status:
    status = _ENDS.get(name)
    if status is None:
        raise ValueError(f"{name!r} is not the end of a task")
    return status


def _moment(text: Any) -> datetime:
    moment = datetime.fromisoformat(_text(text))
    if moment.tzinfo is UTC:  # as limetask writes it
        return moment
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
