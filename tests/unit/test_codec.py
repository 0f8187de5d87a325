"""Messages to bytes and back: what other programs rely on, and what is refused."""

from __future__ import annotations

import collections
import json
import math
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple

import pytest

from limetask import ErrorInfo, MessageRefusedError, ResultError, Status, ids
from limetask.arguments import encode_arguments
from limetask.codec import (
    decode_identity,
    decode_task,
    encode_dead_letter,
    encode_repeated,
    encode_task,
    new_message_id,
)
from limetask.message import (
    Alive,
    Begun,
    Completion,
    Decision,
    Envelope,
    HandlerGone,
    Released,
    Started,
    TaskIdentity,
    Verdict,
    WorkerLost,
    completion_key,
)
from limetask.records import (
    decode_alive,
    decode_completion,
    decode_handler_gone,
    decode_released,
    decode_started,
    decode_verdict,
    decode_worker_lost,
    encode_alive,
    encode_completion,
    encode_handler_gone,
    encode_released,
    encode_started,
    encode_verdict,
    encode_worker_lost,
)
from limetask.registry import MAX_TASK_NAME_BYTES, check_task_name
from limetask.results import encode_result
from limetask.status import Rank

LIMIT = 1024 * 1024
NOW = datetime(2026, 11, 20, 10, 5, 24, 134744, tzinfo=UTC)
TASK_ID = "01a1f86a-ff26-85e6-9272-bd3e1ea04304"
IDENTITY = TaskIdentity(TASK_ID, "pkg.tasks.add", "shop", 2, "limetask.reply.abc")
STARTED = Started(TASK_ID, "pkg.tasks.add", "shop", 2, "host.12.a", False, NOW, NOW + timedelta(seconds=1))
SUCCESS = Completion(
    id="event-1",
    task_id=TASK_ID,
    task_name="pkg.tasks.add",
    app="shop",
    status=Status.SUCCESS,
    result={"sum": 3, "of": [1, 2]},
    error=None,
    attempt=2,
    worker="host.12.a",
    sent_at=NOW,
    started_at=NOW + timedelta(seconds=1),
    finished_at=NOW + timedelta(seconds=2),
)
FAILURE = replace(SUCCESS, status=Status.FAILURE, result=None, error=ErrorInfo("ValueError", "no", "Traceback ..."))
LOST = WorkerLost("host.12.a", "killed by SIGKILL", NOW, [Begun(TASK_ID, 1), Begun(TASK_ID, 2, 1.5)])


@dataclass
class Order:
    number: int
    placed_at: datetime
    lines: list[Decimal]


@dataclass
class Parcel:
    contents: Any


class Labelled(NamedTuple):
    label: str
    contents: Any


class Line(NamedTuple):
    article: str
    price: Decimal


class Colour(Enum):
    RED = "red"


def envelope(**headers: Any) -> Envelope:
    """A task message with some headers replaced; those that are given as `...` are missing."""
    made = encode_task(IDENTITY, encode_arguments([1], {}, LIMIT))
    kept = {name: value for name, value in (dict(made.headers or {}) | headers).items() if value is not ...}
    return replace(made, headers=kept)


def result_of(value: Any) -> Any:
    """What an event's receiver gets for a result."""
    return decode_completion(encode_completion(SUCCESS, encode_result(value, LIMIT)).body).result


def changed(body: bytes, **fields: Any) -> bytes:
    """A record's body with some fields replaced; those that are given as `...` are missing."""
    record = json.loads(body)
    inner = record[0] if isinstance(record, list) else record
    kept = {name: value for name, value in (inner | fields).items() if value is not ...}
    return json.dumps([kept] if isinstance(record, list) else kept).encode()


class TestIdentity:
    @pytest.mark.parametrize("attempt", [1, 2, 1000])
    @pytest.mark.parametrize("reply_to", [None, "limetask.reply.abc"])
    def test_it_arrives_as_it_was_sent(self, reply_to: str | None, attempt: int) -> None:
        """Which task a message is about can be told from its headers alone."""
        identity = replace(IDENTITY, reply_to=reply_to, attempt=attempt)
        assert decode_identity(replace(encode_task(identity, b""), body=b"garbage")) == identity

    def test_it_travels_in_plain_headers(self) -> None:
        """The headers of a task message are those that the wire format names, of simple types."""
        assert encode_task(IDENTITY, b"").headers == {
            "limetask": 1,
            "task_id": TASK_ID,
            "task": "pkg.tasks.add",
            "app": "shop",
            "attempt": 2,
        }

    def test_a_moved_task_is_marked(self) -> None:
        """Only a task that a worker has moved to another queue has the mark."""
        assert (encode_task(IDENTITY, b"", moved=True).headers or {})["moved"] is True
        assert "moved" not in (encode_task(IDENTITY, b"").headers or {})

    @pytest.mark.parametrize(
        ("headers", "reason"),
        [
            ({"limetask": ...}, "not a limetask message"),
            ({"limetask": None}, "not a limetask message"),
            ({"limetask": 2}, "another version of limetask: protocol 2"),
            ({"limetask": "1"}, "another version of limetask: protocol '1'"),
            ({"task_id": ...}, "header 'task_id' is None"),
            ({"task_id": b"bytes"}, "header 'task_id'"),
            ({"task_id": 3}, "header 'task_id' is 3"),
            ({"task_id": ""}, "header 'task_id'"),
            ({"task": ...}, "header 'task' is None"),
            ({"task": ["pkg.add"]}, "header 'task'"),
            ({"app": ...}, "header 'app' is None"),
            ({"app": 3}, "header 'app' is 3"),
            ({"attempt": ...}, "header 'attempt' is None"),
            ({"attempt": "1"}, "header 'attempt' is '1'"),
            ({"attempt": 0}, "header 'attempt' is 0"),
            ({"attempt": -1}, "header 'attempt' is -1"),
            ({"attempt": 1.5}, "header 'attempt' is 1.5"),
            ({"task_id": "no-uuid"}, "'no-uuid' was not made for application 'shop'"),
            ({"task_id": TASK_ID.upper()}, "was not made for application 'shop'"),
            ({"task_id": str(uuid.UUID(int=7))}, "was not made for application 'shop'"),
            ({"app": "other"}, "was not made for application 'other'"),
        ],
        ids=str,
    )
    def test_a_message_with_wrong_headers_is_refused(self, headers: dict[str, Any], reason: str) -> None:
        """A message that limetask did not make, or with another application's id, is refused and the reason told."""
        with pytest.raises(MessageRefusedError) as caught:
            decode_identity(envelope(**headers))
        assert reason in str(caught.value)

    @pytest.mark.parametrize("headers", [None, {}, {"x-death": []}])
    def test_a_message_without_our_headers_is_refused(self, headers: dict[str, Any] | None) -> None:
        """A message of another program is refused."""
        with pytest.raises(MessageRefusedError, match="not a limetask message"):
            decode_identity(Envelope(b"", "application/msgpack", headers=headers))


class TestTask:
    def test_it_arrives_as_it_was_sent(self) -> None:
        """A task message arrives with its identity and its arguments."""
        message = decode_task(IDENTITY, encode_task(IDENTITY, encode_arguments([1, "two"], {"three": 3}, LIMIT)))
        assert (message.identity, message.args, message.kwargs) == (IDENTITY, [1, "two"], {"three": 3})

    def test_it_says_what_it_is(self) -> None:
        """A task message has the content type of msgpack and asks for its reply at the identity's key."""
        made = encode_task(IDENTITY, b"")
        assert (made.content_type, made.reply_to) == ("application/msgpack", "limetask.reply.abc")

    def test_every_publish_has_an_id_of_its_own(self) -> None:
        """The message id is new each time, and never the task's."""
        made = {encode_task(IDENTITY, b"").message_id for _ in range(100)}
        assert len(made) == 100
        assert TASK_ID not in made
        assert len({new_message_id() for _ in range(100)}) == 100

    def test_a_repeated_task_is_flagged_and_otherwise_the_same(self) -> None:
        """What is published a second time says so, and has a message id of its own; the first stays as it was."""
        first = encode_task(IDENTITY, b"body")
        again = encode_repeated(first)
        assert again == replace(first, message_id=again.message_id, headers={**(first.headers or {}), "repeated": True})
        assert again.message_id != first.message_id
        assert "repeated" not in (first.headers or {})

    @pytest.mark.parametrize("content_type", [None, "", "application/json", "application/x-python-serialize"])
    def test_another_content_type_is_refused(self, content_type: str | None) -> None:
        """A body that does not say that it is msgpack is not read."""
        with pytest.raises(MessageRefusedError, match="content type"):
            decode_task(
                IDENTITY, replace(encode_task(IDENTITY, encode_arguments([], {}, LIMIT)), content_type=content_type)
            )

    def test_a_body_that_is_no_arguments_is_refused(self) -> None:
        """What is not arguments does not become a task message."""
        with pytest.raises(MessageRefusedError):
            decode_task(IDENTITY, encode_task(IDENTITY, b"garbage"))


class TestResult:
    @pytest.mark.parametrize(
        ("value", "received"),
        [
            (None, None),
            (True, True),
            (2**53 + 1, 2**53 + 1),
            (2**64 - 1, 2**64 - 1),
            (-(2**63), -(2**63)),
            (1.5, 1.5),
            ("Grüße \N{GRINNING FACE} \x00", "Grüße \N{GRINNING FACE} \x00"),
            ((1, (2,)), [1, [2]]),
            (datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "2026-01-02T03:04:05.000006+00:00"),
            (datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=2))), "2026-01-02T00:00:00+02:00"),
            (date(2026, 1, 2), "2026-01-02"),
            (Decimal("1.10"), "1.10"),
            (Decimal("1E+5"), "1E+5"),
            (uuid.UUID(TASK_ID), TASK_ID),
            (Order(7, NOW, [Decimal("1.5")]), {"number": 7, "placed_at": NOW.isoformat(), "lines": ["1.5"]}),
            (Line("pen", Decimal("1.10")), ["pen", "1.10"]),
            ([Line("pen", Decimal("1.10"))], [["pen", "1.10"]]),
            ({1: "one", 2: {3: 4}}, {"1": "one", "2": {"3": 4}}),
            ({uuid.UUID(TASK_ID): 1, date(2026, 1, 2): 2}, {TASK_ID: 1, "2026-01-02": 2}),
            (Colour.RED, "red"),
            ({Colour.RED: Status.SUCCESS}, {"red": "SUCCESS"}),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_it_arrives_as_json_has_it(self, value: Any, received: Any) -> None:
        """Dates, decimals and UUIDs arrive as strings, dataclasses as objects, tuples as lists, keys as strings."""
        assert result_of(value) == received

    @pytest.mark.parametrize(
        ("value", "kind"),
        [
            ({1, 2}, "set"),
            ({"ids": [frozenset({1})]}, "frozenset"),
            (b"bytes", "bytes"),
            (bytearray(b"bytes"), "bytearray"),
            ([{"a": object()}], "object"),
            (1 + 2j, "complex"),
            (timedelta(1), "datetime.timedelta"),
            (range(3), "range"),
            ((number for number in [1]), "generator"),
            (ValueError("no"), "ValueError"),
            (collections.deque([1]), "collections.deque"),
            (int, "type"),
            (TestIdentity(), f"{__name__}.TestIdentity"),
            ({(1, 2): 3}, "tuple"),
            ([{b"a": 3}], "bytes"),
            ({Decimal(1): 3}, "decimal.Decimal"),
            (Parcel({(1, 2): 3}), "tuple"),
            ({"parcels": (Parcel({"a": {b"b": 3}}),)}, "bytes"),
            (Labelled("a", {Decimal(1): 3}), "decimal.Decimal"),
        ],
        ids=lambda value: value if isinstance(value, str) else type(value).__name__,
    )
    def test_what_json_cannot_express_is_refused_by_its_type(self, value: Any, kind: str) -> None:
        """A result that holds something that is not JSON is refused, and the message names its type."""
        with pytest.raises(ResultError) as caught:
            encode_result(value, LIMIT)
        assert kind in str(caught.value).split(": ", 1)[1].replace(",", " ").split()

    @pytest.mark.parametrize(
        "value", [2**64, -(2**63) - 1, [2**70], "\ud800", {"\udcff": 1}, ["\ud800"]], ids=lambda value: ascii(value)
    )
    def test_numbers_and_texts_beyond_json_are_refused(self, value: Any) -> None:
        """Whole numbers of more than 64 bits and texts that are no valid Unicode are refused."""
        with pytest.raises(ResultError, match="cannot be expressed as JSON"):
            encode_result(value, LIMIT)

    def test_a_result_that_holds_itself_is_refused(self) -> None:
        """A list that holds itself is refused."""
        value: list[Any] = []
        value.append(value)
        with pytest.raises(ResultError, match="cannot be expressed as JSON"):
            encode_result(value, LIMIT)

    @pytest.mark.parametrize("nothing", [math.nan, math.inf, -math.inf])
    def test_what_is_no_number_is_refused(self, nothing: float) -> None:
        """JSON has no NaN and no infinity, and a null in their place would not be true."""
        for result in (nothing, [1.0, {"a": nothing}], Parcel({"weight": nothing})):
            with pytest.raises(ResultError, match="NaN or an infinity"):
                encode_result(result, LIMIT)
        assert encode_result([None, 1.0], LIMIT) == b"[null,1.0]"

    def test_its_limit_is_exact(self) -> None:
        """A result of exactly the limit passes, one byte more is refused with the figures and advice."""
        assert len(encode_result("x" * 998, 1000)) == 1000
        with pytest.raises(ResultError, match=r"1,001 bytes.*limit is 1,000 bytes.*summary"):
            encode_result("x" * 999, 1000)


class TestCompletion:
    @pytest.mark.parametrize(
        "completion",
        [
            SUCCESS,
            FAILURE,
            replace(FAILURE, error=ErrorInfo("WorkerLost", "killed"), worker=None, started_at=None),
            replace(FAILURE, result="out of stock", error=ErrorInfo("TaskFailure", "out of stock")),
            replace(SUCCESS, result=None),
            replace(SUCCESS, result=[1.5, "two", None, {"three": True}]),
        ],
    )
    def test_it_arrives_as_it_was_sent(self, completion: Completion) -> None:
        """A completion event arrives equal."""
        assert decode_completion(encode_completion(completion).body) == completion

    def test_it_is_json_that_others_can_read(self) -> None:
        """The event is JSON with the documented fields, and times in ISO 8601 with the offset of UTC."""
        made = encode_completion(FAILURE)
        assert (made.content_type, made.kind) == ("application/json", "completion")
        assert json.loads(made.body) == {
            "id": "event-1",
            "task_id": TASK_ID,
            "task_name": "pkg.tasks.add",
            "app": "shop",
            "status": "FAILURE",
            "result": None,
            "error": {"type": "ValueError", "message": "no", "traceback": "Traceback ..."},
            "attempt": 2,
            "sent_at": "2026-11-20T10:05:24.134744+00:00",
            "started_at": "2026-11-20T10:05:25.134744+00:00",
            "finished_at": "2026-11-20T10:05:26.134744+00:00",
            "worker": "host.12.a",
        }

    @pytest.mark.parametrize(
        ("completion", "rank"),
        [
            (SUCCESS, Rank.ENDED),
            (FAILURE, Rank.ENDED),
            (replace(FAILURE, error=ErrorInfo("WorkerLost", "killed")), Rank.PRESUMED_LOST),
            (replace(FAILURE, error=ErrorInfo("shop.WorkerLost", "no")), Rank.ENDED),
        ],
    )
    def test_a_presumed_loss_is_no_reported_end(self, completion: Completion, rank: Rank) -> None:
        """Only the failure that is told of a dead worker's task gives way to what the worker itself reports."""
        assert completion.rank is rank
        assert decode_completion(encode_completion(completion).body).rank is rank

    def test_times_arrive_in_utc(self) -> None:
        """Whatever the offset in which a time was written, it arrives in UTC."""
        body = changed(encode_completion(SUCCESS).body, sent_at="2026-11-20T12:05:24.134744+02:00")
        received = decode_completion(body).sent_at
        assert received == NOW
        assert received.tzinfo is UTC

    def test_an_error_may_say_anything(self) -> None:
        """An error whose texts are no valid Unicode arrives, with something in place of what is not."""
        error = ErrorInfo("Bad\ud800Error", "file \udcff not found", "line 1\nline \ud800 2")
        received = decode_completion(encode_completion(replace(FAILURE, error=error)).body).error
        assert received is not None
        assert received.message.startswith("file ")
        assert received.message.endswith(" not found")
        assert received.traceback.startswith("line 1\nline ")

    @pytest.mark.parametrize("status", [Status.SUCCESS, Status.FAILURE])
    @pytest.mark.parametrize("character", ["x", "ä", "\N{SNOWMAN}", "\N{GRINNING FACE}"])
    def test_the_routing_key_of_the_longest_name_fits(self, status: Status, character: str) -> None:
        """A task's name of the allowed length makes a routing key of at most 255 bytes, for either end."""
        size = len(character.encode())
        name = "a." + character * ((MAX_TASK_NAME_BYTES - 2) // size)
        name += "x" * (MAX_TASK_NAME_BYTES - len(name.encode()))
        check_task_name(name)
        assert len(completion_key(name, status).encode()) == 255

    @pytest.mark.parametrize(
        ("status", "key"),
        [(Status.SUCCESS, "core.task.pkg.add.success.v1"), (Status.FAILURE, "core.task.pkg.add.failure.v1")],
    )
    def test_the_routing_key_tells_name_and_end(self, status: Status, key: str) -> None:
        """Events are published under their task's name and how it ended."""
        assert replace(SUCCESS, task_name="pkg.add", status=status).routing_key == key


class TestStarted:
    def test_starts_arrive_as_they_were_sent(self) -> None:
        """Several starts share a message and arrive in order."""
        other = replace(STARTED, task_id=ids.new_task_id("other"), app="other", acks_late=True)
        assert decode_started(encode_started([STARTED, other]).body) == [STARTED, other]

    def test_no_starts_arrive_as_none(self) -> None:
        """An empty message is allowed."""
        assert decode_started(encode_started([]).body) == []

    def test_the_message_says_what_it_is(self) -> None:
        """Starts are JSON of their own kind."""
        made = encode_started([STARTED])
        assert (made.content_type, made.kind) == ("application/json", "started")


class TestWorkerLost:
    @pytest.mark.parametrize("lost", [LOST, replace(LOST, begun=[]), replace(LOST, begun=None)], ids=repr)
    def test_it_arrives_as_it_was_sent(self, lost: WorkerLost) -> None:
        """Which worker was lost, why, when and with what arrives equal, as JSON of its own kind."""
        made = encode_worker_lost(lost)
        assert decode_worker_lost(made.body) == lost
        assert (made.content_type, made.kind) == ("application/json", "worker-lost")


class TestBetweenWorkerAndRecorder:
    def test_signs_of_life_arrive_as_they_were_sent(self) -> None:
        """Which workers live, and what they have in hand, arrives equal."""
        alive = Alive(NOW, {"host.12.a": [TASK_ID], "host.12.b": [], "host.12.c": None})
        assert decode_alive(encode_alive(alive).body) == alive

    def test_a_released_task_arrives_as_it_was_sent(self) -> None:
        """Which worker gives what back arrives equal."""
        released = Released(TASK_ID, 3, "host.12.a", NOW)
        assert decode_released(encode_released(released).body) == released

    @pytest.mark.parametrize("worker", [None, "host.12.a"])
    def test_a_verdict_arrives_as_it_was_sent(self, worker: str | None) -> None:
        """What the recorder has decided arrives equal."""
        verdict = Verdict(TASK_ID, 3, NOW, Decision.STARTED_ELSEWHERE, 2, worker)
        assert decode_verdict(encode_verdict(verdict).body) == verdict

    def test_a_handler_that_is_gone_arrives_as_it_was_sent(self) -> None:
        """Whose queue was deleted when arrives equal, with the kind that the recorder knows."""
        gone = HandlerGone("shop.events.notify", NOW)
        envelope = encode_handler_gone(gone)
        assert (decode_handler_gone(envelope.body), envelope.kind) == (gone, "handler-gone")


DECODERS: dict[str, tuple[Callable[[bytes], Any], bytes]] = {
    "completion": (decode_completion, encode_completion(FAILURE).body),
    "started": (decode_started, encode_started([STARTED]).body),
    "worker-lost": (decode_worker_lost, encode_worker_lost(LOST).body),
    "handler-gone": (decode_handler_gone, encode_handler_gone(HandlerGone("shop.events.notify", NOW)).body),
}
FIELDS = [
    (kind, field)
    for kind, (_, body) in DECODERS.items()
    for field in json.loads(body.removeprefix(b"[").removesuffix(b"]"))
]
TEXTS = [("completion", name) for name in ("id", "task_id", "task_name", "app", "worker")]
TEXTS += [("started", name) for name in ("task_id", "task_name", "app", "worker")]
TEXTS += [("worker-lost", name) for name in ("worker", "reason")]
TEXTS += [("handler-gone", "name")]
MOMENTS = [("completion", name) for name in ("sent_at", "started_at", "finished_at")]
MOMENTS += [("started", name) for name in ("sent_at", "started_at")]
MOMENTS += [("worker-lost", "lost_at"), ("handler-gone", "gone_at")]


class TestHostileRecords:
    @pytest.mark.parametrize("kind", DECODERS)
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"null",
            b"1",
            b'"text"',
            b"[null]",
            b"[[]]",
            b"[1]",
            b'{"a": 1}',
            b"NaN",
            b"1e999",
            b"\xff\xfe",
            b'"\xed\xa0\x80"',
            b"{}{}",
            b"[" * 100_000,
            b'{"a":' * 100_000,
            b"[" * 1000 + b"]" * 1000,
            b"\x82\xa4args\x90\xa6kwargs\x80",
        ],
        ids=lambda value: repr(value[:12]),
    )
    def test_what_is_no_record_is_refused(self, kind: str, body: bytes) -> None:
        """A body that is not JSON, or not of the kind that is expected, is refused."""
        with pytest.raises(MessageRefusedError, match=kind):
            DECODERS[kind][0](body)

    @pytest.mark.parametrize(("kind", "field"), FIELDS)
    def test_a_missing_field_is_named(self, kind: str, field: str) -> None:
        """A record without one of its fields is refused, and the message names the field."""
        decode, body = DECODERS[kind]
        with pytest.raises(MessageRefusedError, match=field):
            decode(changed(body, **{field: ...}))

    @pytest.mark.parametrize(("kind", "field"), TEXTS)
    def test_a_text_that_is_none_is_refused(self, kind: str, field: str) -> None:
        """Where a text belongs nothing else is taken."""
        decode, body = DECODERS[kind]
        for value in (3, True, ["a"], {"a": 1}):
            with pytest.raises(MessageRefusedError):
                decode(changed(body, **{field: value}))

    @pytest.mark.parametrize(("kind", "field"), MOMENTS)
    @pytest.mark.parametrize("value", [3, ["a"], "yesterday", "2026-13-01T00:00:00+00:00"], ids=str)
    def test_a_time_that_is_none_is_refused(self, kind: str, field: str, value: Any) -> None:
        """Where a moment belongs nothing else is taken, no other text either."""
        decode, body = DECODERS[kind]
        with pytest.raises(MessageRefusedError):
            decode(changed(body, **{field: value}))

    @pytest.mark.parametrize(("kind", "field"), MOMENTS)
    def test_a_time_that_no_calendar_has_is_refused(self, kind: str, field: str) -> None:
        """A time that in UTC is before the year 1 or after 9999 is refused."""
        decode, body = DECODERS[kind]
        for value in ("9999-12-31T23:59:59-23:00", "0001-01-01T00:00:00+23:00"):
            with pytest.raises(MessageRefusedError):
                decode(changed(body, **{field: value}))

    @pytest.mark.parametrize(("kind", "field"), MOMENTS)
    def test_a_time_without_an_offset_is_refused(self, kind: str, field: str) -> None:
        """A time that does not say in which zone it is would be taken for this machine's, so it is refused."""
        decode, body = DECODERS[kind]
        with pytest.raises(MessageRefusedError):
            decode(changed(body, **{field: "2026-01-01T00:00:00"}))

    @pytest.mark.parametrize("kind", ["completion", "started"])
    def test_an_attempt_that_is_none_is_refused(self, kind: str) -> None:
        """An attempt is a whole number from 1, as it is in a task message, and one that a database can hold."""
        decode, body = DECODERS[kind]
        values: list[Any] = [None, 0, -1, 1.5, "1", "one", [], 2**63]
        for value in values:
            with pytest.raises(MessageRefusedError):
                decode(changed(body, attempt=value))

    @pytest.mark.parametrize("value", [None, "no"], ids=repr)
    def test_a_start_says_whether_it_is_acked_late(self, value: Any) -> None:
        """Whether a task is acked late decides what its worker's death means, so it is true or false."""
        with pytest.raises(MessageRefusedError):
            decode_started(changed(encode_started([STARTED]).body, acks_late=value))

    @pytest.mark.parametrize("status", ["PENDING", "STARTED", "success", "", None, 1, [], "LOST"], ids=repr)
    def test_only_an_end_completes_a_task(self, status: Any) -> None:
        """A completion with a status that is not an end is refused."""
        with pytest.raises(MessageRefusedError):
            decode_completion(changed(encode_completion(SUCCESS).body, status=status))

    @pytest.mark.parametrize(
        "error",
        [
            "ValueError",
            3,
            ["ValueError", "no", ""],
            {"type": "ValueError"},
            {"type": "ValueError", "message": "no", "traceback": "", "locals": {}},
            {"type": 3, "message": ["no"], "traceback": ""},
        ],
        ids=repr,
    )
    def test_an_error_that_is_none_is_refused(self, error: Any) -> None:
        """An error is an object of three texts."""
        with pytest.raises(MessageRefusedError):
            decode_completion(changed(encode_completion(FAILURE).body, error=error))

    @pytest.mark.parametrize("kind", ["completion", "started"])
    @pytest.mark.parametrize(
        "fields",
        [
            {"app": "other"},
            {"task_id": "no-uuid"},
            {"task_id": TASK_ID.upper()},
            {"task_id": str(uuid.UUID(int=7))},
            {"task_id": None},
        ],
        ids=str,
    )
    def test_a_foreign_task_is_refused(self, kind: str, fields: dict[str, Any]) -> None:
        """A record about a task that its application does not own is refused."""
        decode, body = DECODERS[kind]
        with pytest.raises(MessageRefusedError, match="was not made for application"):
            decode(changed(body, **fields))

    @pytest.mark.parametrize("kind", DECODERS)
    @pytest.mark.parametrize("seed", range(2))
    def test_a_damaged_record_is_read_or_refused(self, kind: str, seed: int) -> None:
        """Of thousands of records with random damage each is read or refused; no other exception comes through."""
        decode, body = DECODERS[kind]
        chance = random.Random(seed)
        outcomes = collections.Counter[str]()
        for _ in range(2_000):
            damaged = bytearray(body)
            for _ in range(chance.randint(1, 3)):
                damaged[chance.randrange(len(damaged))] = chance.choice(b'0123456789"{}[],:.-+eET nulltrue\\\x00\xff')
            try:
                decode(bytes(damaged))
            except MessageRefusedError:
                outcomes["refused"] += 1
            else:
                outcomes["read"] += 1
        assert outcomes["refused"] > 100
        assert outcomes["read"] > 10

    @pytest.mark.parametrize("kind", DECODERS)
    def test_a_field_of_any_type_is_read_or_refused(self, kind: str) -> None:
        """Whatever stands in whichever field, the record is read or refused; no other exception comes through."""
        decode, body = DECODERS[kind]
        values: list[Any] = [None, True, 0, -1, 1.5, 1e300, 2**63, "", "x", "\x00", [], {}, [[]], {"a": 1}]
        values += ["9999-12-31T23:59:59-23:00", "0001-01-01", TASK_ID, "SUCCESS", "9" * 5000]
        for field in (name for of, name in FIELDS if of == kind):
            for value in values:
                try:
                    decode(changed(body, **{field: value}))
                except MessageRefusedError:
                    continue


class TestDeadLetter:
    def test_it_keeps_the_message_and_tells_why(self) -> None:
        """A dead letter has the message's body, its headers under `original`, and reason, queue, kind and time."""
        letter = encode_dead_letter(envelope(), "limetask.tasks.default", "unknown task", NOW)
        assert (letter.body, letter.content_type) == (envelope().body, "application/msgpack")
        assert (letter.kind, letter.reply_to) == ("dead-letter", "limetask.reply.abc")
        assert letter.headers == {
            "limetask": 1,
            "reason": "unknown task",
            "queue": "limetask.tasks.default",
            "died_at": NOW.isoformat(),
            "kind": "",
            "original": envelope().headers,
        }

    def test_the_brokers_headers_are_left_out(self) -> None:
        """No header of the broker's own is published again: `x-death` would have the message dropped as a cycle."""
        died = envelope(**{"x-death": [{"count": 1}], "x-first-death-queue": "q", "x-delivery-count": 3, "moved": True})
        letter = encode_dead_letter(died, "q", "why", NOW)
        assert (letter.headers or {})["original"] == envelope(moved=True).headers
        assert "x-" not in str(letter.headers)

    def test_a_message_without_headers_can_die_too(self) -> None:
        """A foreign message without headers, kind or content type becomes a dead letter as well."""
        letter = encode_dead_letter(Envelope(b"garbage", None), "q", "why", NOW)
        assert (letter.body, (letter.headers or {})["original"]) == (b"garbage", {})

    def test_it_has_an_id_of_its_own(self) -> None:
        """A dead letter is a publish of its own, with its own message id."""
        original = envelope()
        assert encode_dead_letter(original, "q", "why", NOW).message_id not in (original.message_id, None)

    def test_a_kind_is_kept(self) -> None:
        """A record that dies keeps telling what kind of record it was."""
        letter = encode_dead_letter(encode_started([STARTED]), "limetask.results", "why", NOW)
        assert (letter.headers or {})["kind"] == "started"


def test_a_result_is_encoded_once() -> None:
    """An encoded result is put into its event as it is, without decoding and encoding it again."""
    result = encode_result({"b": 1, "a": [1.0, Decimal("2.50")]}, LIMIT)
    assert b'"result":{"b":1,"a":[1.0,"2.50"]},' in encode_completion(SUCCESS, result).body
