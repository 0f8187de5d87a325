"""Retrying dead letters: which can be, and the fresh messages that are sent for them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import TracebackType
from typing import Any

from limetask.amqp import Connection, SizeRefusedError
from limetask.codec import (
    MAX_ATTEMPT,
    MSGPACK,
    decode_identity,
    encode_task,
    new_message_id,
    says_msgpack,
    shown,
    text_property,
)
from limetask.dead_letters.headers import with_past
from limetask.dead_letters.letter import DeadLetter, Found
from limetask.dead_letters.queue import DeadQueue, to_its_end
from limetask.errors import ConnectionLostError, MessageRefusedError, TooLargeForBrokerError
from limetask.message import Envelope, MessageKind
from limetask.settings import Settings
from limetask.signing import Signer
from limetask.topology import QOS_CATEGORIES, Names

# Records that are told again by themselves while they are true, and would be wrong at a later time.
_OUT_OF_DATE: dict[str, str] = {
    MessageKind.CLAIM: "it is a question of a worker that has asked again since, or has gone: purge it",
    MessageKind.ALIVE: "it is a sign of life that is out of date, and living workers give others: purge it",
    MessageKind.ECHO: "it is what a recorder has sent to itself to hear whether it hears: purge it",
    MessageKind.RETURNED: "it says what a worker had let go of, and the tasks have come to others since: purge it",
    MessageKind.HANDLERS: "it says which handlers a worker had, and running workers say so every minute: purge it",
}
# Retries that may await their confirms at a time.
_IN_FLIGHT = 200


class Retrier:
    """Publishes fresh messages for letters, many at a time, and removes each letter when its message is confirmed."""

    def __init__(self, settings: Settings, queue: DeadQueue) -> None:
        self._names = Names(settings.namespace)
        self._signer = Signer.of(settings)
        self._timeout = settings.send_timeout
        self._connect_timeout = settings.connect_timeout
        self._queue = queue
        # An alarm of the broker blocks a connection that publishes, and must not stop acks.
        self._publisher = Connection(settings, "dead letters, publisher")
        self._published: dict[tuple[Any, ...], asyncio.Future[None]] = {}
        self._in_flight: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self.count = 0
        self.refused: list[tuple[DeadLetter, str]] = []

    async def __aenter__(self) -> Retrier:
        try:
            await self._publisher.ready(self._connect_timeout)
        except BaseException:
            await to_its_end(self._publisher.close())
            raise
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await to_its_end(self._close())

    async def take(self, found: Found) -> None:
        """Begin to retry a letter, or note why it cannot be; raises what an earlier one has failed with."""
        reason = _why_not(found, self._signer)
        if reason is not None:
            self.refused.append((found.letter, reason))
            return
        while len(self._in_flight) >= _IN_FLIGHT:
            await asyncio.wait(self._in_flight, return_when=asyncio.FIRST_COMPLETED)
        if self._failure is not None:
            await self.finish()  # so that `count` has those that were on their way
        retrying = asyncio.get_running_loop().create_task(self._retry(found))
        self._in_flight.add(retrying)
        retrying.add_done_callback(self._on_done)

    async def finish(self) -> None:
        """Return when all are confirmed and removed; raises what one of them has failed with."""
        if self._in_flight:
            await asyncio.wait(self._in_flight)
        if self._failure is not None:
            raise self._failure

    async def _close(self) -> None:
        # What is published is still confirmed and removed after a failure or Ctrl-C: fewer are sent twice.
        if self._in_flight:
            await asyncio.wait(self._in_flight)
        await self._publisher.close()

    async def _retry(self, found: Found) -> None:
        # Several letters of one message: one is sent for all, or a worker would have to tell them apart.
        key = _message_key(found)
        if key not in self._published:
            self._published[key] = asyncio.ensure_future(self._publish(found))
        try:
            await self._published[key]
        except TooLargeForBrokerError as exc:  # its letter is older than the broker's limit
            self.refused.append((found.letter, str(exc)))
            return
        self._queue.remove(found)
        self.count += 1

    async def _publish(self, found: Found) -> None:
        message = _fresh_message(found, self._names, self._signer)
        try:
            async with asyncio.timeout(self._timeout):
                while True:
                    try:
                        return await self._publisher.publish(*message)
                    except SizeRefusedError:  # another was too large, and has taken the connection with it
                        await self._publisher.ready(self._timeout)
        except TimeoutError:
            raise ConnectionLostError(
                f"the broker did not confirm within {self._timeout:g} s (is it blocked by an alarm?)"
            ) from None

    def _on_done(self, retrying: asyncio.Task[None]) -> None:
        self._in_flight.discard(retrying)
        self._failure = self._failure or retrying.exception()


def _why_not(found: Found, signer: Signer) -> str | None:
    """Return why a letter cannot be retried, None if it can.

    A retry is signed, so it must not vouch for a message that nobody with a key has signed.
    """
    if found.letter.kind == "event":
        return None
    if found.letter.kind == "record":
        return _OUT_OF_DATE.get(found.letter.record or "")
    if found.identity is None:
        return "it is no task of limetask"
    if not says_msgpack(found.message):
        return f"its content type is {shown(found.message.content_type)}, not {MSGPACK}"
    if found.identity.attempt >= MAX_ATTEMPT:
        return "it has no attempts left"
    try:
        decode_identity(found.message, signer)
    except MessageRefusedError as exc:
        return str(exc)
    return None


def _message_key(found: Found) -> tuple[Any, ...]:
    identity = found.identity
    return (found.letter.id,) if identity is None else (identity, found.message.body)


def _fresh_message(found: Found, names: Names, signer: Signer) -> tuple[str, str, Envelope]:
    """Return exchange, routing key and message of a retry, with headers made anew.

    They are never copied: RabbitMQ up to 3.13 drops a message that comes back with its `x-death`, without a word.
    """
    message = found.message
    content_type, kind = text_property(message.content_type), text_property(message.kind)
    if found.letter.kind == "event" and found.letter.queue is not None:
        again = Envelope(message.body, content_type, new_message_id(), kind)
        return "", found.letter.queue, with_past(again, found.letter.deaths, found.letter.first_died_at)
    if found.identity is None:
        return "", names.results_queue, Envelope(message.body, content_type, new_message_id(), kind)
    next_attempt = replace(found.identity, attempt=found.identity.attempt + 1)
    envelope = encode_task(next_attempt, message.body, signer, repeated=True)
    envelope = with_past(envelope, found.letter.deaths, found.letter.first_died_at)
    return names.tasks_exchange, _task_queue(found.letter.queue, names), envelope


def _task_queue(queue: str | None, names: Names) -> str:
    """Return the queue that a task had waited in, if it is one of ours; a worker moves it if that is not right."""
    known = {names.task_queue(qos) for qos in QOS_CATEGORIES}
    return queue if queue in known else names.task_queue("default")
