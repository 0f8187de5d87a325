"""Task messages and dead letters: bytes to values and back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeGuard

import orjson

from limetask import ids
from limetask.amqp_1_0 import AMQP_1_0
from limetask.application import MAX_IDENTIFIER_BYTES
from limetask.arguments import decode_arguments, is_deeper
from limetask.errors import MessageRefusedError
from limetask.ids import new_message_id as new_message_id  # for all who import it from here
from limetask.message import Envelope, MessageKind, TaskIdentity, TaskMessage, UnreadableHeaders
from limetask.plain_headers import LONGEST_SHORT_TEXT, cut, plain_headers, plain_text
from limetask.registry import MAX_TASK_NAME_BYTES
from limetask.signing import UNSIGNED, Signer

PROTOCOL_VERSION = 1
# The store's column has 32 bits.
MAX_ATTEMPT = 2**31 - 1
MSGPACK = "application/msgpack"
_OTHER_NAMES_OF_MSGPACK = frozenset(("application/vnd.msgpack", "application/x-msgpack"))
JSON = "application/json"
LONGEST_REASON = 1500
"""How many bytes of the reason a dead letter tells: it may quote what the message says, at any length."""

MAX_JSON_NESTING = 254
"""How deep lists and objects may be nested in a record or an event. orjson writes no more, and reads more."""

DEFAULT_FRAME_BYTES = 131_072
"""How long a frame may be unless the broker is set up otherwise."""

_TASK_HEADERS = frozenset(("limetask", "task_id", "task", "app", "attempt", "signature"))
# What all of a dead letter's properties but `original` take at most: the reason, and six short texts.
_LETTER_BYTES = 3328
_TASK_ID_BYTES = 36
_LONGEST_SHOWN = 100


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
    letter = Envelope(
        body=envelope.body,
        content_type=text_property(envelope.content_type),
        message_id=new_message_id(),
        kind=MessageKind.DEAD_LETTER,
        reply_to=text_property(envelope.reply_to),
        headers={
            "limetask": PROTOCOL_VERSION,
            "reason": cut(reason, LONGEST_REASON),
            "queue": queue,
            "died_at": died_at.isoformat(),
            "kind": text_property(envelope.kind) or "",
            "original": {
                name: value for name, value in (envelope.headers or {}).items() if not plain_text(name).startswith("x-")
            },
        },
    )
    return fitting_dead_letter(letter, DEFAULT_FRAME_BYTES)


def encode_dead_headers(envelope: Envelope, queue: str, reason: str, died_at: datetime) -> Envelope:
    """Return the dead letter of a message that the broker does not take with its body any more.

    It has no content type, so that nobody takes it for a task without arguments and tries it again.
    """
    told = f"(its body is left out: the broker does not take its {len(envelope.body):,} bytes any more) {reason}"
    return encode_dead_letter(replace(envelope, body=b"", content_type=None), queue, told, died_at)


def fitting_dead_letter(letter: Envelope, frame_bytes: int) -> Envelope:
    """Return a dead letter whose headers fit into one frame, as AMQP wants it; `letter` is from `encode_dead_letter`.

    What would not fit is cut or left out, the largest first.
    """
    headers = letter.headers or {}
    original = plain_headers(headers.get("original") or {}, frame_bytes - _LETTER_BYTES, _TASK_HEADERS)
    return replace(letter, headers={**headers, "original": original})


def text_property(value: Any) -> str | None:
    """Return a foreign message's property as one that can be published again."""
    return None if value is None else cut(plain_text(value), LONGEST_SHORT_TEXT)


def decode_identity(envelope: Envelope, signer: Signer = UNSIGNED) -> TaskIdentity:
    """Return which task a message is about. It can be trusted as far as the signer has keys.

    Raises MessageRefusedError for a message that limetask did not make, whose id is not its application's, or that
    nobody with a key has signed as it is now. Such a message says nothing about the task that it names.
    """
    headers = envelope.headers or {}
    version = headers.get("limetask")
    if isinstance(headers, UnreadableHeaders):
        raise MessageRefusedError(headers.reason)
    if version is None:
        raise MessageRefusedError("not a limetask message: it has no header 'limetask'")
    if version != PROTOCOL_VERSION:
        raise MessageRefusedError(
            f"made by another version of limetask: protocol {shown(version)}, not {PROTOCOL_VERSION}"
        )
    task_id = headers.get("task_id")
    if not isinstance(task_id, str) or len(task_id) != _TASK_ID_BYTES:
        task_id = _text(headers, "task_id", _TASK_ID_BYTES)
    task_name = _text(headers, "task", MAX_TASK_NAME_BYTES)
    app = _text(headers, "app", MAX_IDENTIFIER_BYTES)
    attempt = headers.get("attempt")
    if type(attempt) is not int:
        attempt = whole_number(attempt)
    if attempt is None or not 1 <= attempt <= MAX_ATTEMPT:
        raise MessageRefusedError(f"header 'attempt' is {shown(headers.get('attempt'))}, not a number from 1")
    if not ids.belongs_to(task_id, app):
        raise MessageRefusedError(f"task id {task_id!r} was not made for application {app!r}")
    reply_to = envelope.reply_to
    if reply_to is not None and not isinstance(reply_to, str):
        raise MessageRefusedError(f"property 'reply_to' is {shown(reply_to)}, not a text")
    identity = TaskIdentity(task_id, task_name, app, attempt, reply_to)
    if signer.has_keys:
        signer.verify(_signed_parts(identity, envelope.body), headers.get("signature"))
    return identity


def says_msgpack(envelope: Envelope) -> bool:
    """Return True if a message's content type is msgpack, under any of its names."""
    return envelope.content_type == MSGPACK or envelope.content_type in _OTHER_NAMES_OF_MSGPACK


def check_headers(envelope: Envelope) -> None:
    """Raise MessageRefusedError if something of a message's headers could not be read."""
    if isinstance(envelope.headers, UnreadableHeaders):
        raise MessageRefusedError(envelope.headers.reason)


def decode_task(identity: TaskIdentity, envelope: Envelope) -> TaskMessage:
    """Return the whole task message; raises MessageRefusedError if its body cannot be read."""
    if envelope.kind == AMQP_1_0:
        raise MessageRefusedError("its body is a value of AMQP 1.0 and not bytes: send msgpack as a data section")
    if envelope.content_type != MSGPACK and not says_msgpack(envelope):
        raise MessageRefusedError(f"content type {shown(envelope.content_type)}, not {MSGPACK}")
    return TaskMessage(identity, *decode_arguments(envelope.body))


def _signed_parts(identity: TaskIdentity, body: bytes) -> Iterator[bytes]:
    """Yield all that decides what runs, for whom, and who hears of its end; not how the message travels."""
    yield str(PROTOCOL_VERSION).encode()
    for text in (identity.task_id, identity.task_name, identity.app, str(identity.attempt), identity.reply_to or ""):
        yield text.encode(errors="surrogatepass")
    yield body


def decode_json(body: bytes) -> Any:
    """Return the value in a body; raises ValueError for what is no JSON, or nested too deeply to be passed on."""
    value = orjson.loads(body)
    is_suspect = len(body) > 2 * MAX_JSON_NESTING and body.count(b"[") + body.count(b"{") > MAX_JSON_NESTING
    if is_suspect and not _can_be_written(value) and is_deeper(value, MAX_JSON_NESTING):
        raise ValueError(f"it is nested more than {MAX_JSON_NESTING} levels deep")
    return value


def _can_be_written(value: Any) -> bool:
    """Return True if orjson writes a value, which it does not if that is deep: so most are told from those quickly."""
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True


def has_flag(envelope: Envelope, name: str) -> bool:
    """Return True if a message has this header, unless it says no: some clients send all flags that they know."""
    return bool((envelope.headers or {}).get(name))


def count_in(envelope: Envelope, name: str) -> int:
    """Return the count that a header holds; 0 without one, and never more than can be counted further."""
    return min(max(0, whole_number((envelope.headers or {}).get(name)) or 0), MAX_ATTEMPT)


def whole_number(value: object) -> int | None:
    """Return a header's whole number, of whatever width, as a plain int; None for anything else."""
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else None


def shown(value: object) -> str:
    """Return a value for the message of an error, shortened: it may be of any size."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _text(headers: Mapping[str, Any], name: str, most_bytes: int) -> str:
    value = headers.get(name)
    if is_plain(value, most_bytes):
        return value
    if isinstance(value, bytes):  # as some clients send texts
        with contextlib.suppress(UnicodeDecodeError):
            value = value.decode()
    if not isinstance(value, str) or not value:
        raise MessageRefusedError(f"header {name!r} is {shown(value)}, not a text")
    if "\x00" in value:  # a database might refuse it
        raise MessageRefusedError(f"header {name!r} is {shown(value)}, with a NUL character")
    if len(value.encode("utf-8", "surrogatepass")) > most_bytes:
        raise MessageRefusedError(f"header {name!r} is longer than {most_bytes} bytes: {shown(value)}")
    return value


def is_plain(value: object, most_bytes: int) -> TypeGuard[str]:
    """Return True for a text of ASCII that is neither empty nor too long, as nearly all names are."""
    return type(value) is str and len(value) <= most_bytes and _is_plain_name(value)


# There are as many as names of tasks and applications: each message has both. Longer texts must not be kept here.
@lru_cache(maxsize=8192)
def _is_plain_name(value: str) -> bool:
    return value.isascii() and value != "" and "\x00" not in value


def valid_text(text: str) -> str:
    """Return a text with what is no valid Unicode replaced: an exception's may hold anything, and JSON only text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text
