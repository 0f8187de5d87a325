"""What the recorder reads: JSON to values and back. A task's end is an event as well, so other programs read it too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from limetask.codec import JSON, decode_json, new_message_id, valid_text
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
    MessageKind,
    Refused,
    Released,
    Returned,
    Started,
    Verdict,
    WorkerLost,
)
from limetask.record_fields import (
    MALFORMED,
    attempt_of,
    end_of,
    error_of,
    handler_name_of,
    key_of,
    list_of,
    moment_of,
    name_of,
    number_of,
    own_task_id,
    refusing,
    task_id_of,
    task_name_of,
    text_of,
    truth_of,
)
from limetask.status import ErrorInfo


def encode_completion(completion: Completion, result: bytes | None = None) -> Envelope:
    """Return the event of a task's end; `result`, if given, is its result, encoded already."""
    return completion_event(
        orjson.dumps(
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
        )
    )


def completion_event(body: bytes) -> Envelope:
    """Return the event of a task's end, whose body is encoded already."""
    return Envelope(body=body, content_type=JSON, message_id=new_message_id(), kind=MessageKind.COMPLETION)


@refusing(MessageKind.COMPLETION)
def decode_completion(body: bytes) -> Completion:
    """Return the end that an event tells of; raises MessageRefusedError for anything else."""
    return _completion(decode_json(body))


def _completion(fields: Mapping[str, Any]) -> Completion:
    return Completion(
        id=text_of(fields["id"]),
        task_id=own_task_id(fields),
        task_name=task_name_of(fields["task_name"]),
        app=name_of(fields["app"]),
        status=end_of(fields["status"]),
        result=fields["result"],
        error=error_of(fields["error"]),
        attempt=attempt_of(fields["attempt"]),
        worker=None if fields["worker"] is None else name_of(fields["worker"]),
        sent_at=moment_of(fields["sent_at"]),
        started_at=None if fields["started_at"] is None else moment_of(fields["started_at"]),
        finished_at=moment_of(fields["finished_at"]),
    )


def encode_refused(refused: Refused) -> Envelope:
    """Return the message by which a worker tells the recorder of a task that it has refused."""
    fields = {
        "end": orjson.Fragment(encode_completion(refused.end).body),
        "was_delivered_before": refused.was_delivered_before,
    }
    return Envelope(body=orjson.dumps(fields), content_type=JSON, message_id=new_message_id(), kind=MessageKind.REFUSED)


@refusing(MessageKind.REFUSED)
def decode_refused(body: bytes) -> Refused:
    """Return which task was refused; raises MessageRefusedError for anything else."""
    fields = decode_json(body)
    return Refused(_completion(fields["end"]), truth_of(fields["was_delivered_before"]))


def encode_started(records: Sequence[Started]) -> Envelope:
    """Return one message that tells of all these tasks' starts."""
    return Envelope(
        body=orjson.dumps(records), content_type=JSON, message_id=new_message_id(), kind=MessageKind.STARTED
    )


@refusing(MessageKind.STARTED)
def decode_started(body: bytes) -> list[Started]:
    """Return the starts in a message; raises MessageRefusedError for anything else."""
    return [_started(fields) for fields in list_of(decode_json(body))]


def readable_starts(body: bytes) -> list[Started]:
    """Return the starts of a message that `decode_started` refuses which can be read all the same."""
    with contextlib.suppress(*MALFORMED):
        return [start for fields in list_of(decode_json(body)) for start in _readable_start(fields)]
    return []


def _readable_start(fields: Any) -> Iterator[Started]:
    with contextlib.suppress(*MALFORMED):
        yield _started(fields)


def _started(fields: dict[str, Any]) -> Started:
    return Started(
        task_id=own_task_id(fields),
        task_name=task_name_of(fields["task_name"]),
        app=name_of(fields["app"]),
        attempt=attempt_of(fields["attempt"]),
        worker=name_of(fields["worker"]),
        acks_late=truth_of(fields["acks_late"]),
        sent_at=moment_of(fields["sent_at"]),
        started_at=moment_of(fields["started_at"]),
    )


def encode_claim(claim: Claim) -> Envelope:
    """Return the message by which a worker asks whether it may run a task."""
    return Envelope(body=orjson.dumps(claim), content_type=JSON, message_id=new_message_id(), kind=MessageKind.CLAIM)


@refusing(MessageKind.CLAIM)
def decode_claim(body: bytes) -> Claim:
    """Return the claim in a message; raises MessageRefusedError for anything else."""
    fields = decode_json(body)
    return Claim(
        start=_started(fields["start"]),
        may_run_again=truth_of(fields["may_run_again"]),
        reply_to=text_of(fields["reply_to"]),
        may_begin_elsewhere=truth_of(fields["may_begin_elsewhere"]),
    )


def encode_verdict(verdict: Verdict) -> Envelope:
    """Return the recorder's answer to a claim."""
    return Envelope(
        body=orjson.dumps(verdict), content_type=JSON, message_id=new_message_id(), kind=MessageKind.VERDICT
    )


@refusing(MessageKind.VERDICT)
def decode_verdict(body: bytes) -> Verdict:
    """Return the verdict in a message; raises MessageRefusedError for anything else."""
    fields = decode_json(body)
    return Verdict(
        task_id=text_of(fields["task_id"]),
        attempt=attempt_of(fields["attempt"]),
        started_at=moment_of(fields["started_at"]),
        decision=Decision(fields["decision"]),
        begun=int(fields["begun"]),
        worker=None if fields["worker"] is None else text_of(fields["worker"]),
    )


def encode_released(released: Released) -> Envelope:
    """Return the message by which a worker takes back the start of a task that has not begun."""
    return Envelope(
        body=orjson.dumps(released), content_type=JSON, message_id=new_message_id(), kind=MessageKind.RELEASED
    )


@refusing(MessageKind.RELEASED)
def decode_released(body: bytes) -> Released:
    """Return who takes which start back; raises MessageRefusedError for anything else."""
    fields = decode_json(body)
    return Released(
        task_id=task_id_of(fields["task_id"]),
        attempt=attempt_of(fields["attempt"]),
        worker=name_of(fields["worker"]),
        started_at=moment_of(fields["started_at"]),
    )


def encode_returned(returned: Returned) -> Envelope:
    """Return the message by which a worker lets go of tasks that it has not started."""
    return Envelope(
        body=orjson.dumps(returned), content_type=JSON, message_id=new_message_id(), kind=MessageKind.RETURNED
    )


@refusing(MessageKind.RETURNED)
def decode_returned(body: bytes) -> Returned:
    """Return which tasks a worker lets go of; raises MessageRefusedError for anything else."""
    tasks = decode_json(body)["tasks"]
    return Returned([(task_id_of(task_id), attempt_of(attempt)) for task_id, attempt in tasks])


def encode_alive(alive: Alive) -> Envelope:
    """Return the message by which a supervisor gives a sign of life."""
    return Envelope(body=orjson.dumps(alive), content_type=JSON, message_id=new_message_id(), kind=MessageKind.ALIVE)


@refusing(MessageKind.ALIVE)
def decode_alive(body: bytes) -> Alive:
    """Return whose sign of life it is; raises MessageRefusedError for anything else."""
    fields = decode_json(body)
    workers = {
        name_of(worker): None if held is None else [*map(text_of, list_of(held))]
        for worker, held in fields["workers"].items()
    }
    return Alive(moment_of(fields["seen_at"]), workers)


def encode_echo(echo: Echo) -> Envelope:
    """Return the message that a recorder sends to itself."""
    return Envelope(body=orjson.dumps(echo), content_type=JSON, message_id=new_message_id(), kind=MessageKind.ECHO)


@refusing(MessageKind.ECHO)
def decode_echo(body: bytes) -> Echo:
    """Return which recorder sent this to itself, and when; raises MessageRefusedError for anything else."""
    fields = decode_json(body)
    store_id = fields.get("store_id")  # older recorders do not tell
    return Echo(
        recorder=name_of(fields["recorder"]),
        sent_at=number_of(fields["sent_at"]),
        store_id=None if store_id is None else text_of(store_id),
        store=text_of(fields.get("store", "")),
    )


def encode_worker_lost(lost: WorkerLost) -> Envelope:
    """Return the message by which a supervisor tells of a worker process that has ended."""
    return Envelope(
        body=orjson.dumps(lost), content_type=JSON, message_id=new_message_id(), kind=MessageKind.WORKER_LOST
    )


@refusing(MessageKind.WORKER_LOST)
def decode_worker_lost(body: bytes) -> WorkerLost:
    """Return which worker process was lost; raises MessageRefusedError for anything else."""
    fields = decode_json(body)
    begun = None if fields["begun"] is None else [*map(_begun, list_of(fields["begun"]))]
    return WorkerLost(name_of(fields["worker"]), text_of(fields["reason"]), moment_of(fields["lost_at"]), begun)


def _begun(fields: dict[str, Any]) -> Begun:
    exceeded = fields["exceeded"]
    return Begun(
        text_of(fields["task_id"]), attempt_of(fields["attempt"]), None if exceeded is None else number_of(exceeded)
    )


def encode_handlers(handlers: Sequence[HandlerBindings]) -> Envelope:
    """Return the message by which a worker tells of the event handlers that it has bound."""
    return Envelope(
        body=orjson.dumps(handlers), content_type=JSON, message_id=new_message_id(), kind=MessageKind.HANDLERS
    )


@refusing(MessageKind.HANDLERS)
def decode_handlers(body: bytes) -> list[HandlerBindings]:
    """Return the handlers in a message; raises MessageRefusedError for anything else."""
    return [
        HandlerBindings(
            handler_name_of(fields["name"]),
            [*map(key_of, list_of(fields["bindings"]))],
            moment_of(fields["declared_at"]),
        )
        for fields in list_of(decode_json(body))
    ]


def encode_handler_gone(gone: HandlerGone) -> Envelope:
    """Return the message by which whoever has deleted a handler's queue tells of it."""
    return Envelope(
        body=orjson.dumps(gone), content_type=JSON, message_id=new_message_id(), kind=MessageKind.HANDLER_GONE
    )


@refusing(MessageKind.HANDLER_GONE)
def decode_handler_gone(body: bytes) -> HandlerGone:
    """Return which handler is gone; raises MessageRefusedError for anything else."""
    fields = decode_json(body)
    return HandlerGone(handler_name_of(fields["name"]), moment_of(fields["gone_at"]))


def _error_fields(error: ErrorInfo | None) -> dict[str, str] | None:
    if error is None:
        return None
    return {name: valid_text(getattr(error, name)) for name in ("type", "message", "traceback")}
