"""Records to bytes and back: what workers tell the recorder, and what it refuses."""

from __future__ import annotations

import collections
import json
import random
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC
from typing import Any

import pytest

from limetask import ErrorInfo, MessageRefusedError, ResultError, Status, ids
from limetask.message import (
    Alive,
    Claim,
    Completion,
    Decision,
    Echo,
    HandlerBindings,
    HandlerGone,
    Refused,
    Released,
    Returned,
    Verdict,
    WorkerLost,
    completion_key,
)
from limetask.records import (
    decode_alive,
    decode_claim,
    decode_completion,
    decode_echo,
    decode_handler_gone,
    decode_handlers,
    decode_refused,
    decode_released,
    decode_returned,
    decode_started,
    decode_verdict,
    decode_worker_lost,
    encode_alive,
    encode_claim,
    encode_completion,
    encode_echo,
    encode_handler_gone,
    encode_handlers,
    encode_refused,
    encode_released,
    encode_returned,
    encode_started,
    encode_verdict,
    encode_worker_lost,
)
from limetask.registry import MAX_TASK_NAME_BYTES, check_task_name
from limetask.results import encode_result
from limetask.status import Rank
from tests.unit.messages import FAILURE, LIMIT, LOST, NOW, STARTED, SUCCESS, TASK_ID


def changed(body: bytes, **fields: Any) -> bytes:
    """A record's body with some fields replaced; those that are given as `...` are missing."""
    record = json.loads(body)
    inner = record[0] if isinstance(record, list) else record
    kept = {name: value for name, value in (inner | fields).items() if value is not ...}
    return json.dumps([kept] if isinstance(record, list) else kept).encode()


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

    @pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"a": inner}])
    def test_a_result_may_be_as_deep_as_can_be_written(self, wrap: Callable[[Any], Any]) -> None:
        """What a task may return arrives; deeper ones, which only others write, are refused before they do harm."""
        result: Any = 1
        for _ in range(254):
            result = wrap(result)
        encoded = encode_result(result, LIMIT)
        assert decode_completion(encode_completion(SUCCESS, encoded).body).result == result
        with pytest.raises(ResultError):
            encode_result(wrap(result), LIMIT)
        deeper = json.dumps(wrap(result)).encode()
        with pytest.raises(MessageRefusedError, match="nested more than 254 levels deep"):
            decode_completion(encode_completion(SUCCESS, deeper).body)

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
            (replace(FAILURE, error=ErrorInfo("UnknownTaskError", "no"), started_at=None), Rank.REFUSED),
            (replace(FAILURE, error=ErrorInfo("MessageRefusedError", "no"), started_at=None), Rank.REFUSED),
            (replace(FAILURE, error=ErrorInfo("MessageRefusedError", "by a body")), Rank.PRESUMED_LOST),
            (replace(FAILURE, error=ErrorInfo("UnknownApplicationError", "no")), Rank.PRESUMED_LOST),
            (replace(FAILURE, error=ErrorInfo("StartRefusedError", "no")), Rank.PRESUMED_LOST),
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

    def test_an_echo_arrives_as_it_was_sent(self) -> None:
        """Whose it is, and when it was sent, arrives equal."""
        echo = Echo("host.12.r", 8123.456789)
        assert decode_echo(encode_echo(echo).body) == echo

    def test_returned_tasks_arrive_as_they_were_sent(self) -> None:
        """Which attempts at which tasks a worker lets go of arrives equal."""
        returned = Returned([(TASK_ID, 1), (TASK_ID, 3)])
        assert decode_returned(encode_returned(returned).body) == returned

    @pytest.mark.parametrize("was_delivered_before", [True, False])
    def test_a_refused_task_arrives_as_it_was_sent(self, was_delivered_before: bool) -> None:
        """How it ends by that, and whether its message came a second time, arrives equal."""
        refused = Refused(FAILURE, was_delivered_before)
        envelope = encode_refused(refused)
        assert (decode_refused(envelope.body), envelope.kind) == (refused, "refused")

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

    @pytest.mark.parametrize("name", ["shop.a\nshop.b", "shop.\x1b[2J", "shop.\u202e"])
    def test_a_handler_whose_name_cannot_be_shown_is_refused(self, name: str) -> None:
        """No handler can be declared with it, and it would forge lines of `limetask handlers`."""
        for decode, body in (
            (decode_handlers, encode_handlers([HandlerBindings(name, ["shop.#"], NOW)]).body),
            (decode_handler_gone, encode_handler_gone(HandlerGone(name, NOW)).body),
        ):
            with pytest.raises(MessageRefusedError, match="cannot be shown"):
                decode(body)


DECODERS: dict[str, tuple[Callable[[bytes], Any], bytes]] = {
    "completion": (decode_completion, encode_completion(FAILURE).body),
    "started": (decode_started, encode_started([STARTED]).body),
    "worker-lost": (decode_worker_lost, encode_worker_lost(LOST).body),
    "claim": (decode_claim, encode_claim(Claim(STARTED, False, "limetask.reply.abc")).body),
    "released": (decode_released, encode_released(Released(TASK_ID, 3, "host.12.a", NOW)).body),
    "refused": (decode_refused, encode_refused(Refused(FAILURE, True)).body),
    "alive": (decode_alive, encode_alive(Alive(NOW, {"host.12.a": [TASK_ID]})).body),
    "handlers": (decode_handlers, encode_handlers([HandlerBindings("shop.notify", ["shop.#"], NOW)]).body),
    "verdict": (decode_verdict, encode_verdict(Verdict(TASK_ID, 3, NOW, Decision.RUN, 1, None)).body),
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

    @pytest.mark.parametrize("kind", ["completion", "started"])
    def test_a_name_that_no_application_has_is_refused(self, kind: str) -> None:
        """It is longer than one may be, so whoever has made the id and the record to fit is not limetask."""
        app = "a" * 256
        decode, body = DECODERS[kind]
        with pytest.raises(MessageRefusedError, match="was not made for application"):
            decode(changed(body, app=app, task_id=ids.new_task_id(app)))

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
