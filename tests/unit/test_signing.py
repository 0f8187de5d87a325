"""Signatures of task messages, and the secrets that they are made with: what counts, and what never shows."""

from __future__ import annotations

import logging
from dataclasses import fields, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from limetask import ConfigurationError, MessageRefusedError, Settings, ids
from limetask.arguments import encode_arguments
from limetask.codec import decode_identity, decode_task, encode_dead_letter, encode_task
from limetask.message import Envelope, TaskIdentity
from limetask.settings import MIN_SIGNING_KEY_BYTES, settings_table
from limetask.signing import UNSIGNED, Signer

OLD, NEW, OTHER = "old-" + "o" * 60, "new-" + "n" * 60, "other-" + "x" * 58
SIGNER = Signer.of(Settings(signing_keys=OLD))
IDENTITY = TaskIdentity(ids.new_task_id("shop"), "pkg.tasks.add", "shop", 2, "limetask.reply.abc")
BODY = encode_arguments([1, "two"], {"three": 3}, 1000)
SIGNED = encode_task(IDENTITY, BODY, SIGNER)


def signer_with(*keys: str) -> Signer:
    return Signer.of(Settings(signing_keys=",".join(keys)))


def with_headers(envelope: Envelope, **headers: Any) -> Envelope:
    """A message with some headers replaced; those that are given as `...` are missing."""
    kept = {name: value for name, value in (dict(envelope.headers or {}) | headers).items() if value is not ...}
    return replace(envelope, headers=kept)


class TestMessage:
    def test_a_signed_message_is_read(self) -> None:
        """What was signed with a key of the reader is the task that was sent."""
        identity = decode_identity(SIGNED, SIGNER)
        assert identity == IDENTITY
        assert decode_task(identity, SIGNED).args == [1, "two"]

    @pytest.mark.parametrize(
        "altered",
        [
            replace(SIGNED, body=encode_arguments([1, "TWO"], {"three": 3}, 1000)),
            replace(SIGNED, body=b""),
            replace(SIGNED, reply_to="limetask.reply.mine"),
            replace(SIGNED, reply_to=None),
            with_headers(SIGNED, task="pkg.tasks.delete"),
            with_headers(SIGNED, attempt=1),
            with_headers(SIGNED, task_id=ids.new_task_id("shop")),
            with_headers(SIGNED, task_id=ids.new_task_id("umbrella"), app="umbrella"),
        ],
    )
    def test_an_altered_message_is_refused(self, altered: Envelope) -> None:
        """Whatever decides what runs, for whom, and who hears of it, cannot be changed afterwards."""
        with pytest.raises(MessageRefusedError, match="altered"):
            decode_identity(altered, SIGNER)

    @pytest.mark.parametrize("signature", [..., None, "", 1, b"\xff", "ä", "x", "a" * 73])
    def test_a_message_without_a_signature_of_ours_is_refused(self, signature: object) -> None:
        """A missing or nonsensical signature is refused, and the reason says which setting it is about."""
        with pytest.raises(MessageRefusedError, match=r"^(unsigned|signed with another key).*LIMETASK_SIGNING_KEYS"):
            decode_identity(with_headers(SIGNED, signature=signature), SIGNER)

    @pytest.mark.parametrize("end", [-1, 9, 8])
    def test_a_shortened_signature_is_refused(self, end: int) -> None:
        """No part of a signature counts as one."""
        signature = (SIGNED.headers or {})["signature"]
        with pytest.raises(MessageRefusedError):
            decode_identity(with_headers(SIGNED, signature=signature[:end]), SIGNER)

    def test_how_a_message_travels_is_not_signed(self) -> None:
        """A worker may mark a message, and limetask may add headers, without making it another task."""
        assert decode_identity(with_headers(SIGNED, moved=True, repeated=True, traceparent="00-1"), SIGNER) == IDENTITY

    def test_a_moved_message_is_signed_too(self) -> None:
        """What a worker puts into another queue is as good as what the sender has sent."""
        assert decode_identity(encode_task(IDENTITY, BODY, SIGNER, moved=True), SIGNER) == IDENTITY

    def test_without_keys_signatures_do_not_count(self) -> None:
        """A process without keys signs nothing and runs signed, unsigned and wrongly signed messages alike."""
        unsigned = encode_task(IDENTITY, BODY, UNSIGNED)
        assert "signature" not in (unsigned.headers or {})
        assert Signer.of(Settings()).sign([BODY]) is None
        for envelope in (unsigned, SIGNED, with_headers(SIGNED, signature="nonsense")):
            assert decode_identity(envelope, Signer.of(Settings())) == IDENTITY

    def test_a_dead_letter_can_still_be_verified(self) -> None:
        """A dead letter keeps body, reply key and signature, so that whoever sends it again can tell a forged one."""
        letter = encode_dead_letter(SIGNED, "limetask.tasks.default", "a reason", datetime.now(UTC))
        assert letter.body == SIGNED.body
        original = replace(letter, headers=(letter.headers or {})["original"])
        assert decode_identity(original, SIGNER) == IDENTITY

    def test_a_reply_key_that_is_no_text_is_refused(self) -> None:
        """AMQP lets a sender put any bytes there; they are a refusal, with keys and without, and not a crash."""
        hostile: Any = b"\xff\xfe"
        for signer in (SIGNER, UNSIGNED):
            with pytest.raises(MessageRefusedError, match="reply_to"):
                decode_identity(replace(SIGNED, reply_to=hostile), signer)


class TestRotation:
    def test_keys_can_be_replaced_without_a_pause(self) -> None:
        """Add the new key behind the old one, put it first, take the old one away: each step reads the one before."""
        steps = [signer_with(OLD), signer_with(OLD, NEW), signer_with(NEW, OLD), signer_with(NEW)]
        for before, after in pairwise(steps):
            for sender, reader in ((before, after), (after, before)):
                assert decode_identity(encode_task(IDENTITY, BODY, sender), reader) == IDENTITY

    def test_a_key_that_was_taken_away_no_longer_counts(self) -> None:
        """What was signed with a key that the reader does not have is refused; the reason tells it from a change."""
        with pytest.raises(MessageRefusedError, match="signed with another key"):
            decode_identity(encode_task(IDENTITY, BODY, signer_with(OLD)), signer_with(NEW))

    def test_the_first_key_signs(self) -> None:
        """A second key changes nothing in what is sent."""
        assert encode_task(IDENTITY, BODY, signer_with(OLD, NEW)).headers == SIGNED.headers


class TestEncoding:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ([b"ab", b"c"], [b"a", b"bc"]),
            ([b"ab"], [b"a", b"b"]),
            ([b"", b"a"], [b"a", b""]),
            ([b"a"], [b"a", b""]),
            ([b"a"], [b"\x00\x00\x00\x00\x00\x00\x00\x01a"]),
        ],
    )
    def test_no_two_messages_are_signed_alike(self, one: list[bytes], other: list[bytes]) -> None:
        """Moving bytes from one part to the next gives another signature."""
        assert SIGNER.sign(one) != SIGNER.sign(other)

    def test_a_signature_is_the_same_everywhere(self) -> None:
        """The signature of a message does not change between versions: messages wait in queues meanwhile."""
        identity = TaskIdentity("an id", "pkg.tasks.run", "shop", 1, None)
        assert (encode_task(identity, b"body", Signer([b"k" * 32])).headers or {})[
            "signature"
        ] == "480ed1ac:e0c9c94af6e016b25badd217dfa15799e55779665cf8eb907c991d7e840c9941"


class TestKeys:
    @pytest.mark.parametrize("keys", [f" {OLD} , {NEW} ", f"{OLD},{NEW}"])
    def test_spaces_around_a_key_do_not_count(self, keys: str) -> None:
        """Keys are joined by commas, with or without spaces."""
        signer = Signer.of(Settings.from_environment({"LIMETASK_SIGNING_KEYS": keys}))
        assert encode_task(IDENTITY, BODY, signer).headers == SIGNED.headers

    @pytest.mark.parametrize(
        ("keys", "number", "size"),
        [
            ("x" * (MIN_SIGNING_KEY_BYTES - 1), 1, MIN_SIGNING_KEY_BYTES - 1),
            (f"{OLD},s3cret", 2, 6),
            (f"{OLD},", 2, 0),
            (",", 1, 0),
            ("  ", 1, 0),
        ],
    )
    def test_a_short_key_is_refused(self, keys: str, number: int, size: int) -> None:
        """A key that could be guessed, or is empty, stops the process instead of switching the protection off."""
        with pytest.raises(ConfigurationError) as caught:
            Settings(signing_keys=keys)
        message = str(caught.value)
        assert f"key {number} of LIMETASK_SIGNING_KEYS has {size} bytes" in message
        assert "secrets.token_hex" in message
        assert "s3cret" not in message
        assert OLD not in message

    def test_a_key_is_measured_in_bytes(self) -> None:
        """A key may have any characters, and also bytes that are no text, as an environment may hold them."""
        for key in ("ü" * (MIN_SIGNING_KEY_BYTES // 2), "\udcff" * MIN_SIGNING_KEY_BYTES):
            signer = Signer.of(Settings(signing_keys=key))
            assert decode_identity(encode_task(IDENTITY, BODY, signer), signer) == IDENTITY


class TestSecrecy:
    SETTINGS = Settings(
        broker_url="amqps://shop:s3cret@broker/orders",
        store_url="postgresql://shop:s3cret@host/db?sslpassword=s3cret",
        signing_keys=f"{OLD},{NEW}",
    )

    def test_settings_do_not_show_secrets(self) -> None:
        """What a log or an error report makes of settings has all of them, and neither password nor key."""
        shown = f"{self.SETTINGS} {self.SETTINGS!r} {[self.SETTINGS]}"
        assert not any(secret in shown for secret in ("s3cret", OLD, NEW))
        assert "amqps://shop:***@broker/orders" in shown
        assert all(f"{field.name}=" in shown for field in fields(Settings))

    def test_settings_say_whether_there_are_keys(self) -> None:
        """That there are keys can be seen, and nothing of them."""
        assert "signing_keys='***'" in repr(self.SETTINGS)
        assert "signing_keys=''" in repr(Settings())

    def test_the_table_shows_no_key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The table of settings has no key in it, also not where one is set."""
        monkeypatch.setenv("LIMETASK_SIGNING_KEYS", OLD)
        assert OLD not in settings_table()

    def test_a_signer_does_not_show_its_keys(self) -> None:
        """Neither the signer nor what it holds shows a key when it is printed."""
        shown = f"{SIGNER!r} {vars(SIGNER)}"
        assert OLD not in shown
        assert "oooo" not in shown

    def test_no_refusal_shows_a_key(self, caplog: pytest.LogCaptureFixture) -> None:
        """The reasons go into dead letters and logs, and hold neither a key nor the right signature."""
        caplog.set_level(logging.DEBUG)
        altered = replace(SIGNED, body=b"other")
        right = (encode_task(IDENTITY, b"other", SIGNER).headers or {})["signature"]
        for envelope in (
            altered,
            with_headers(altered, signature=...),
            encode_task(IDENTITY, BODY, signer_with(OTHER)),
        ):
            with pytest.raises(MessageRefusedError) as caught:
                decode_identity(envelope, SIGNER)
            said = str(caught.value) + caplog.text
            assert not any(secret in said for secret in (OLD, OTHER, right, right.partition(":")[2]))
