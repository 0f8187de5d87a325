"""Task messages and dead letters: bytes to values and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from limetask import ids
from limetask.arguments import decode_arguments
from limetask.errors import MessageRefusedError
from limetask.ids import new_message_id as new_message_id  # for all who import it from here
from limetask.message import Envelope, TaskIdentity, TaskMessage
from limetask.signing import UNSIGNED, Signer

PROTOCOL_VERSION = 1
# The store's column has 32 bits.
MAX_ATTEMPT = 2**31 - 1
MSGPACK = "application/msgpack"
JSON = "application/json"


def encode_task(
    identity: TaskIdentity,
    body: bytes,
    signer: Signer = UNSIGNED,
    *,
    moved: bool = False,
    repeated: bool = False,
    put_off: int = 0,
) -> Envelope:
    """Return the message that carries one attempt at a task, signed; `body` is from `encode_arguments`.

    `moved` marks one that a worker has put into another queue: it is not moved a second time. `repeated` marks one
    that may be in the queue already: the worker looks the attempt up before it runs it. `put_off` is how often it had
    to wait because another worker had recorded its start.
    """
    headers: dict[str, Any] = {
        "limetask": PROTOCOL_VERSION,
        "task_id": identity.task_id,
        "task": identity.task_name,
        "app": identity.app,
        "attempt": identity.attempt,
    }
    if signer.has_keys:
        headers["signature"] = signer.sign(_signed_parts(identity, body))
    if moved:
        headers["moved"] = True
    if repeated:
        headers["repeated"] = True
    if put_off:
        headers["put_off"] = put_off
    return Envelope(body, MSGPACK, new_message_id(), reply_to=identity.reply_to, headers=headers)


def encode_repeated(task: Envelope) -> Envelope:
    """Return a task's message for a queue where it may be already; `task` is from `encode_task`, never a delivery's."""
    return replace(task, message_id=new_message_id(), headers={**(task.headers or {}), "repeated": True})


def encode_dead_letter(envelope: Envelope, queue: str, reason: str, died_at: datetime) -> Envelope:
    """Return a message with its reason for being set aside: its body as it was, its own headers under `original`.

    The broker's own headers are left out: `x-death` on a message that is published again has it dropped as a cycle
    by RabbitMQ up to 3.13.
    """
    headers = {_plain_text(name): _plain(value) for name, value in (envelope.headers or {}).items()}
    original = {name: value for name, value in headers.items() if not name.startswith("x-")}
    return Envelope(
        body=envelope.body,
        content_type=envelope.content_type and _plain_text(envelope.content_type),
        message_id=new_message_id(),
        kind="dead-letter",
        reply_to=envelope.reply_to and _plain_text(envelope.reply_to),
        headers={
            "limetask": PROTOCOL_VERSION,
            "reason": reason,
            "queue": queue,
            "died_at": died_at.isoformat(),
            "kind": _plain_text(envelope.kind or ""),
            "original": original,
        },
    )


def _plain(value: Any) -> Any:
    """Return a foreign header's value as one that can be published again."""
    match value:
        case None | bool():
            return value
        case int() if -(2**63) <= value < 2**63:
            return value
        case dict():
            return {_plain_text(name): _plain(part) for name, part in value.items()}
        case list():
            return [_plain(part) for part in value]
    return _plain_text(value)


def _plain_text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def decode_identity(envelope: Envelope, signer: Signer = UNSIGNED) -> TaskIdentity:
    """Return which task a message is about. It can be trusted as far as the signer has keys.

    Raises MessageRefusedError for a message that limetask did not make, whose id is not its application's, or that
    nobody with a key has signed as it is now. Such a message says nothing about the task that it names.
    """
    headers = envelope.headers or {}
    version = headers.get("limetask")
    if version is None:
        raise MessageRefusedError("not a limetask message: it has no header 'limetask'")
    if version != PROTOCOL_VERSION:
        raise MessageRefusedError(f"made by another version of limetask: protocol {version!r}, not {PROTOCOL_VERSION}")
    task_id, task_name, app = _text(headers, "task_id"), _text(headers, "task"), _text(headers, "app")
    attempt = headers.get("attempt")
    if type(attempt) is not int or not 1 <= attempt <= MAX_ATTEMPT:
        raise MessageRefusedError(f"header 'attempt' is {attempt!r}, not a number from 1")
    if not ids.belongs_to(task_id, app):
        raise MessageRefusedError(f"task id {task_id!r} was not made for application {app!r}")
    reply_to = envelope.reply_to
    if reply_to is not None and not isinstance(reply_to, str):  # a property that is no UTF-8 arrives as bytes
        raise MessageRefusedError(f"property 'reply_to' is {reply_to!r}, not a text")
    identity = TaskIdentity(task_id, task_name, app, attempt, reply_to)
    if signer.has_keys:
        signer.verify(_signed_parts(identity, envelope.body), headers.get("signature"))
    return identity


def decode_task(identity: TaskIdentity, envelope: Envelope) -> TaskMessage:
    """Return the whole task message; raises MessageRefusedError if its body cannot be read."""
    if envelope.content_type != MSGPACK:
        raise MessageRefusedError(f"content type {envelope.content_type!r}, not {MSGPACK}")
    return TaskMessage(identity, *decode_arguments(envelope.body))


def _signed_parts(identity: TaskIdentity, body: bytes) -> Iterator[bytes]:
    """Yield all that decides what runs, for whom, and who hears of its end; not how the message travels."""
    yield str(PROTOCOL_VERSION).encode()
    for text in (identity.task_id, identity.task_name, identity.app, str(identity.attempt), identity.reply_to or ""):
        yield text.encode(errors="surrogatepass")
    yield body


def _text(headers: Mapping[str, Any], name: str) -> str:
    value = headers.get(name)
    if not isinstance(value, str) or not value:
        raise MessageRefusedError(f"header {name!r} is {value!r}, not a text")
    if "\x00" in value:  # a database might refuse it
        raise MessageRefusedError(f"header {name!r} is {value!r}, with a NUL character")
    return value


def valid_text(text: str) -> str:
    """Return a text with what is no valid Unicode replaced: an exception's may hold anything, and JSON only text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text
