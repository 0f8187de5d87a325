"""Task messages and dead letters to bytes and back: what other programs rely on, and what is refused."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import pytest

from limetask import MessageRefusedError
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
    Envelope,
)
from limetask.records import (
    encode_started,
)
from tests.unit.messages import IDENTITY, LIMIT, NOW, STARTED, TASK_ID


def envelope(**headers: Any) -> Envelope:
    """A task message with some headers replaced; those that are given as `...` are missing."""
    made = encode_task(IDENTITY, encode_arguments([1], {}, LIMIT))
    kept = {name: value for name, value in (dict(made.headers or {}) | headers).items() if value is not ...}
    return replace(made, headers=kept)


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
            ({"task_id": b"\xff"}, "header 'task_id'"),
            ({"task": "pkg." + "x" * 70_000}, "header 'task' is longer than 234 bytes: 'pkg.xxx"),
            ({"app": "ä" * 130}, "header 'app' is longer than 255 bytes"),
            ({"attempt": True}, "header 'attempt' is True"),
            ({"attempt": 2**31}, "header 'attempt' is 2147483648"),
            ({"task_id": 3}, "header 'task_id' is 3"),
            ({"task_id": ""}, "header 'task_id'"),
            ({"task": ...}, "header 'task' is None"),
            ({"task": ["pkg.add"]}, "header 'task'"),
            ({"app": ...}, "header 'app' is None"),
            ({"app": 3}, "header 'app' is 3"),
            ({"app": "a\x00b"}, "with a NUL character"),
            ({"task": "pkg.a\x00b"}, "with a NUL character"),
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
