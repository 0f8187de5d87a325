"""Events, as those see them who subscribe: ends of tasks, and what users publish themselves."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from limetask.amqp_1_0 import AMQP_1_0, body_of_amqp_1_0
from limetask.application import identifier_of
from limetask.codec import JSON, check_headers, decode_json, new_message_id, shown
from limetask.errors import ApplicationError, EventError, MessageRefusedError, ResultError
from limetask.foreign import shortened
from limetask.message import Envelope, MessageKind
from limetask.patterns import COMPLETION_PREFIX
from limetask.records import decode_completion
from limetask.results import encode_json
from limetask.status import ErrorInfo, Status
from limetask.topology import MAX_KEY_BYTES


@dataclass(frozen=True, slots=True)
class Event:
    """Something that has happened to an application.

    `id` is the same however often the event comes: to do something once, remember it. `app` is the application's
    identifier. `raw` is the whole event as it was published, in JSON's types.

    If a task has ended, `task_id`, `task_name`, `status`, `result`, `error`, `attempt`, `worker`, `sent_at`,
    `started_at` and `finished_at` are those of its `TaskStatus`. For an event that was published with `publish_event`
    they are None, `body` is what was published, `sent_at` is when, and `cause` the id of the task that did, if it was
    one. Times are aware, in UTC.
    """

    id: str
    routing_key: str
    app: str
    task_id: str | None = None
    task_name: str | None = None
    status: Status | None = None
    result: Any = None
    error: ErrorInfo | None = None
    attempt: int | None = None
    worker: str | None = None
    sent_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    body: Any = None
    cause: str | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)


def encode_event(app: str, routing_key: str, body: object, cause: str | None, max_bytes: int) -> tuple[str, Envelope]:
    """Return the id and the message of a user's own event; `cause` is the id of the task that publishes it.

    Raises EventError for a key that no event may have, and for a body that is no JSON or more than `max_bytes`.
    """
    check_routing_key(routing_key)
    event_id = str(uuid.uuid4())
    try:
        encoded = encode_json(body, max_bytes, "the body")
    except ResultError as exc:
        raise EventError(f"event {routing_key!r} cannot be published: {exc}") from exc
    fields = {
        "id": event_id,
        "routing_key": routing_key,
        "app": app,
        "body": orjson.Fragment(encoded),
        "sent_at": datetime.now(UTC),
        "cause": cause,
    }
    return event_id, Envelope(orjson.dumps(fields), JSON, message_id=new_message_id(), kind=MessageKind.EVENT)


def decode_event(envelope: Envelope) -> Event:
    """Return the event in a message; raises MessageRefusedError for what is none."""
    check_headers(envelope)
    body = body_of_amqp_1_0(envelope.body) if envelope.kind == AMQP_1_0 else envelope.body
    raw = _json_object(body)
    if "task_id" in raw and "routing_key" not in raw:
        return _completion(body, raw)
    try:
        check_routing_key(raw["routing_key"])
        return Event(
            id=_text(raw, "id"),
            routing_key=raw["routing_key"],
            app=identifier_of(raw["app"]),
            body=raw["body"],
            sent_at=_moment(raw.get("sent_at")),
            cause=None if raw.get("cause") is None else _text(raw, "cause"),
            raw=raw,
        )
    except KeyError as exc:
        raise MessageRefusedError(f"not an event: it has no field {exc}") from None
    except (ValueError, OverflowError, ApplicationError, EventError) as exc:
        raise MessageRefusedError(f"not an event: {exc}") from None


def check_routing_key(routing_key: object) -> None:
    """Raise EventError unless this can be the routing key of a user's own event."""
    example = "such as 'shop.order.paid.v1'"
    if not isinstance(routing_key, str) or not routing_key:
        raise EventError(f"{shortened(routing_key)} is no routing key: it must be words joined by dots, {example}")
    words = routing_key.split(".")
    if not all(words) or not routing_key.isprintable() or any(set("*# ") & set(word) for word in words):
        raise EventError(
            f"{routing_key!r} is no routing key: it must be words joined by dots, without spaces, * or #, {example}"
        )
    if len(routing_key.encode("utf-8", "replace")) > MAX_KEY_BYTES:
        raise EventError(f"routing key {routing_key[:40]!r}... is longer than {MAX_KEY_BYTES} bytes")
    if f"{routing_key}.".startswith(f"{COMPLETION_PREFIX}."):
        raise EventError(
            f"routing key {routing_key!r}: what begins with {COMPLETION_PREFIX!r} tells how a task has ended, and is "
            "published by workers alone. Choose another first word"
        )


def _completion(body: bytes, raw: Mapping[str, Any]) -> Event:
    end = decode_completion(body)
    return Event(
        id=end.id,
        routing_key=end.routing_key,
        app=end.app,
        task_id=end.task_id,
        task_name=end.task_name,
        status=end.status,
        result=end.result,
        error=end.error,
        attempt=end.attempt,
        worker=end.worker,
        sent_at=end.sent_at,
        started_at=end.started_at,
        finished_at=end.finished_at,
        raw=raw,
    )


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = decode_json(body)
    except ValueError as exc:
        raise MessageRefusedError(f"not an event: it is no valid JSON ({exc})") from None
    if not isinstance(value, dict):
        raise MessageRefusedError(f"not an event: it is a JSON {type(value).__name__}, not an object")
    return value


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields[name]
    if not isinstance(value, str) or not value:
        raise ValueError(f"its {name} is {shown(value)}, not a text")
    return value


def _moment(value: object) -> datetime | None:
    if value is None:
        return None
    moment = datetime.fromisoformat(str(value))
    if moment.tzinfo is None:
        raise ValueError(f"its sent_at, {shown(value)}, has no time zone")
    return moment.astimezone(UTC)
