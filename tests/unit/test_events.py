"""Events as their subscribers see them: users' own and ends of tasks, from and to the wire."""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from dataclasses import FrozenInstanceError
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from limetask import ErrorInfo, Event, EventError, MessageRefusedError, Status, ids
from limetask.events import check_routing_key, decode_event, encode_event
from limetask.message import Completion, Envelope
from limetask.records import encode_completion

KEY = "shop.order.paid.v1"
SENT_AT = datetime(2026, 10, 3, 9, 30, tzinfo=UTC)
WIRE = {"id": "e-1", "routing_key": KEY, "app": "acme", "body": {"order": 5}, "sent_at": "2026-10-03T09:30:00Z"}
MEBIBYTE = 2**20


def encoded(body: Any = None, cause: str | None = None, key: str = KEY) -> tuple[str, Envelope]:
    return encode_event("acme", key, body, cause, MEBIBYTE)


def decoded(fields: object) -> Event:
    return decode_event(Envelope(json.dumps(fields).encode(), "application/json"))


def completion(status: Status = Status.FAILURE) -> Completion:
    return Completion(
        id="e-2",
        task_id=ids.new_task_id("acme"),
        task_name="pkg.tasks.add",
        app="acme",
        status=status,
        result="there is no coworker",
        error=ErrorInfo("TaskFailure", "there is no coworker") if status is Status.FAILURE else None,
        attempt=2,
        worker="host:1",
        sent_at=SENT_AT,
        started_at=SENT_AT + timedelta(seconds=1),
        finished_at=SENT_AT + timedelta(seconds=2),
    )


def test_the_wire_format_is_the_documented_one() -> None:
    """A user's own event is a JSON object with these six fields and no others."""
    event_id, envelope = encoded({"order": 5}, cause="task-1")
    fields = json.loads(envelope.body)
    sent_at = datetime.fromisoformat(fields.pop("sent_at"))
    assert fields == {"id": event_id, "routing_key": KEY, "app": "acme", "body": {"order": 5}, "cause": "task-1"}
    assert uuid.UUID(event_id)
    assert abs(datetime.now(UTC) - sent_at) < timedelta(seconds=10)
    assert (envelope.content_type, envelope.kind) == ("application/json", "event")
    assert envelope.message_id


def test_no_two_events_have_the_same_id() -> None:
    """Each event has an id of its own, and each publish a message id."""
    made = [encoded() for _ in range(100)]
    assert len({event_id for event_id, _ in made}) == len({envelope.message_id for _, envelope in made}) == 100


@pytest.mark.parametrize(
    ("body", "received"),
    [
        (None, None),
        (0, 0),
        ("", ""),
        ("null", "null"),
        ("Größe 日本 \U0001f34b", "Größe 日本 \U0001f34b"),
        ([1, (2, 3)], [1, [2, 3]]),
        ({1: "a", "deep": {"er": [None]}}, {"1": "a", "deep": {"er": [None]}}),
        (Decimal("1.10"), "1.10"),
        (date(2026, 1, 2), "2026-01-02"),
        (Status.FAILURE, "FAILURE"),
    ],
    ids=repr,
)
def test_a_body_arrives_as_json_has_it(body: Any, received: Any) -> None:
    """Whatever JSON can express comes out as what JSON makes of it."""
    event_id, envelope = encoded(body, cause="task-1")
    event = decode_event(envelope)
    assert (event.id, event.routing_key, event.app, event.cause) == (event_id, KEY, "acme", "task-1")
    assert event.body == received
    assert event.raw["body"] == received
    assert event.sent_at is not None
    assert event.sent_at.tzinfo is UTC


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (object(), "it holds a value of type object"),
        (b"bytes", "it holds a value of type bytes"),
        ({"deep": [{1, 2}]}, "it holds a value of type set"),
        (float("nan"), "it holds a NaN or an infinity"),
        ({"a": [float("-inf")]}, "it holds a NaN or an infinity"),
        ({(1, 2): 3}, "a key is a value of type tuple"),
        ("\ud800", "a text that is not valid Unicode"),
        (2**64, "a whole number of more than 64 bits"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_body_that_is_no_json_is_refused(body: Any, reason: str) -> None:
    """What JSON cannot express is refused with the event's key and the reason."""
    with pytest.raises(EventError) as caught:
        encoded(body)
    assert str(caught.value).startswith(f"event '{KEY}' cannot be published: the body cannot be expressed as JSON: ")
    assert reason in str(caught.value)


def test_a_body_that_holds_itself_is_refused() -> None:
    """A body without an end is refused, and does not end the process."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(EventError):
        encoded(endless)


def test_a_body_has_a_limit() -> None:
    """The most that a body may take is its JSON; one byte more is refused with both figures."""
    encode_event("acme", KEY, "x" * 98, None, 100)
    with pytest.raises(EventError) as caught:
        encode_event("acme", KEY, "x" * 99, None, 100)
    assert str(caught.value) == (
        f"event '{KEY}' cannot be published: the body takes 101 bytes as JSON and the limit is 100 bytes: "
        "keep the data where it belongs"
    )


@pytest.mark.parametrize("key", ["a", "shop.order", "core", "core.tasks.x", "Core.task.x", "x.core.task", "größe.日本"])
def test_words_joined_by_dots_are_a_key(key: str) -> None:
    """Any words will do, but for those of the ends of tasks."""
    check_routing_key(key)


@pytest.mark.parametrize(
    "key",
    [
        "",
        None,
        3,
        b"a.b",
        ["a"],
        ".",
        "a.",
        ".a",
        "a..b",
        "a b",
        "a.*",
        "#",
        "a\n",
        "a\tb",
        "a.\x00",
        "\ud800",
        "a\u00a0b",
    ],
    ids=ascii,
)
def test_anything_else_is_no_key(key: Any) -> None:
    """A key with an empty word, a space, or what a pattern has for a wildcard, is refused with an example."""
    with pytest.raises(
        EventError, match=r"is no routing key: it must be words joined by dots.*'shop\.order\.paid\.v1'"
    ):
        check_routing_key(key)
    with pytest.raises(EventError):
        encoded(key=key)


@pytest.mark.parametrize("key", ["core.task", "core.task.a", "core.task.pkg.add.failure.v1"])
def test_the_keys_of_ends_are_the_workers(key: str) -> None:
    """Nobody can publish what others take for the end of a task; the message says why and what to do."""
    with pytest.raises(EventError) as caught:
        check_routing_key(key)
    assert str(caught.value) == (
        f"routing key '{key}': what begins with 'core.task' tells how a task has ended, and is published by workers "
        "alone. Choose another first word"
    )


@pytest.mark.parametrize("character", ["x", "ä", "日"])
def test_a_key_fits_into_the_protocol(character: str) -> None:
    """255 bytes are the most, however many letters they are."""
    check_routing_key(character * (255 // len(character.encode())))
    with pytest.raises(EventError, match="is longer than 255 bytes"):
        check_routing_key(character * (256 // len(character.encode()) + 1))


@pytest.mark.parametrize("status", [Status.SUCCESS, Status.FAILURE])
def test_the_end_of_a_task_is_an_event(status: Status) -> None:
    """An event of an end has the fields of the task's status, typed, and the key that it was published with."""
    end = completion(status)
    event = decode_event(encode_completion(end))
    for name in ("id", "task_id", "task_name", "app", "status", "result", "error", "attempt", "worker"):
        assert getattr(event, name) == getattr(end, name), name
    assert (event.sent_at, event.started_at, event.finished_at) == (end.sent_at, end.started_at, end.finished_at)
    assert event.routing_key == f"core.task.pkg.tasks.add.{status.value.lower()}.v1"
    assert (event.body, event.cause) == (None, None)
    assert event.raw["task_name"] == "pkg.tasks.add"


def test_an_own_event_has_nothing_of_a_task() -> None:
    """The fields of an end are None in a user's own event, so `event.task_id` tells the two apart."""
    event = decoded(WIRE)
    assert event == Event("e-1", KEY, "acme", body={"order": 5}, sent_at=SENT_AT, raw=WIRE)
    assert [event.task_id, event.task_name, event.status, event.error, event.attempt, event.worker] == [None] * 6


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cause": None},
        {"cause": "task-1"},
        {"sent_at": None},
        {"sent_at": "2026-10-03T11:30:00+02:00"},
        {"body": None},
        {"source": "php", "task_id": 17},
    ],
    ids=str,
)
def test_events_of_other_languages_are_understood(changes: dict[str, Any]) -> None:
    """When and why may be missing, times may be of any zone, and other fields are left in `raw`."""
    fields = WIRE | changes
    event = decoded(fields)
    assert (event.id, event.routing_key, event.app, event.body) == ("e-1", KEY, "acme", fields["body"])
    assert event.cause == changes.get("cause")
    assert event.sent_at == (None if "sent_at" in changes and changes["sent_at"] is None else SENT_AT)
    assert event.raw == fields


@pytest.mark.parametrize("name", ["id", "routing_key", "app", "body"])
def test_a_field_that_must_be_there_is_missed(name: str) -> None:
    """An event without its id, key, application or body is refused by the field's name."""
    with pytest.raises(MessageRefusedError, match=rf"^not an event: it has no field '{name}'$"):
        decoded({field: value for field, value in WIRE.items() if field != name})


@pytest.mark.parametrize(
    "changes",
    [
        {"id": 1},
        {"id": ""},
        {"id": None},
        {"routing_key": None},
        {"routing_key": "a..b"},
        {"routing_key": "core.task.pkg.add.failure.v1"},
        {"app": 5},
        {"app": ""},
        {"app": "a\nb"},
        {"app": {"identifier": "acme"}},
        {"cause": 5},
        {"cause": ""},
        {"sent_at": 1700000000},
        {"sent_at": 20260101},
        {"sent_at": "yesterday"},
        {"sent_at": "2026-10-03T09:30:00"},
        {"sent_at": "0001-01-01T00:00:00+14:00"},
        {"sent_at": ["2026"]},
    ],
    ids=str,
)
def test_a_field_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    """A field of the wrong type, or an own event that claims to be the end of a task, is refused."""
    with pytest.raises(MessageRefusedError, match=r"^not an event: "):
        decoded(WIRE | changes)


@pytest.mark.parametrize(
    "body", [b"", b"\xff\xfe", b"[]", b"5", b"null", b'"a"', b"{", b"[" * 100_000, b'{"id":"\\ud800"}']
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    """Whatever bytes arrive, the answer is an event or a MessageRefusedError."""
    with pytest.raises(MessageRefusedError, match=r"^not an event: it is"):
        decode_event(Envelope(body, "application/json"))


@pytest.mark.parametrize("name", ["id", "task_name", "app", "status", "attempt", "sent_at", "finished_at", "error"])
@pytest.mark.parametrize("value", [None, 0, "", [], {"a": 1}, "2026-10-03"], ids=str)
def test_a_broken_end_is_refused_or_understood(name: str, value: Any) -> None:
    """An end with a field of any other value never raises anything but MessageRefusedError."""
    fields = json.loads(encode_completion(completion()).body) | {name: value}
    with suppress(MessageRefusedError):
        assert decoded(fields).raw == fields


def test_an_end_for_another_application_is_refused() -> None:
    """A task's id was made for its application: an event that names another one is forged or broken."""
    fields = json.loads(encode_completion(completion()).body) | {"app": "umbrella"}
    with pytest.raises(MessageRefusedError, match="was not made for application 'umbrella'"):
        decoded(fields)


def test_an_event_cannot_be_changed() -> None:
    """Handlers that share an event do not see each other's changes of its fields."""
    with pytest.raises(FrozenInstanceError):
        decoded(WIRE).app = "umbrella"  # type: ignore[misc]


def test_times_are_in_utc() -> None:
    """A time of another zone is the same moment, in UTC."""
    local = SENT_AT.astimezone(timezone(timedelta(hours=9)))
    event = decoded(WIRE | {"sent_at": local.isoformat()})
    assert event.sent_at == SENT_AT
    assert event.sent_at is not None
    assert event.sent_at.tzinfo is UTC
