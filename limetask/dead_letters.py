"""Dead letters: the messages that were set aside, to be looked at, retried or purged.

Two kinds are in the queue of dead letters. Workers publish what must not run there, with a reason of their own. And
the broker moves what was returned to its queue too often, with its reason in `x-death`.

    from limetask import dead_letters

    for letter in dead_letters.list_dead_letters(dead_letters.DeadLetterFilter(task="shop.*")):
        print(letter.id, letter.task_name, letter.reason)
    dead_letters.retry([letter.id])

Every function opens connections of its own for the time of its call and returns when they are closed. They can be
called in any thread, but not where an asyncio loop runs already: there, use `asyncio.to_thread`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any, Literal

from limetask.amqp import Connection, Delivery, Subscription
from limetask.arguments import decode_arguments
from limetask.codec import MAX_ATTEMPT, MSGPACK, decode_identity, encode_task, new_message_id
from limetask.errors import BrokerError, ConnectionLostError, MessageRefusedError, NotFoundError
from limetask.message import Envelope, TaskIdentity
from limetask.records import decode_completion
from limetask.settings import Settings, current_settings
from limetask.signing import Signer
from limetask.topology import QOS_CATEGORIES, Names

Kind = Literal["task", "record", "foreign"]
Progress = Callable[[int, int], None]
"""Is told how many letters have been looked at, and of how many."""

_RECORD_KINDS = ("started", "completion", "worker-lost")
_BROKER_REASONS = {
    "delivery_limit": "delivery_limit: returned to its queue too often",
    "rejected": "rejected: a consumer refused it",
    "expired": "expired: it waited too long in its queue",
    "maxlen": "maxlen: its queue was full",
}
# What a retried message carries of its past, should it die again.
_FIRST_DIED_AT = "first_died_at"
_DEATHS = "deaths"

# AMQP has 16 bits for what one consumer may hold. Should there be more letters, another consumer holds the next ones.
_MOST_HELD_BY_A_CONSUMER = 65_535
# Retries that may await their confirms at a time.
_IN_FLIGHT = 200
_IDLE_SECONDS = 0.2
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What is known of one dead letter.

    `id` is the same at every look. `kind` is "task", "record" (what a worker told the recorder) or "foreign" (limetask
    did not make it, or cannot tell). `attempt` is the attempt that died; `error` is the one that a record tells of.
    `queue` is where the message waited when it died. `first_died_at` and `deaths` cover earlier attempts that were
    retried from here. Times are aware, in UTC. `size` is the body's, in bytes. What is not known is None.
    """

    id: str
    kind: Kind
    task_id: str | None
    task_name: str | None
    app: str | None
    attempt: int | None
    reason: str
    error: str | None
    queue: str | None
    first_died_at: datetime | None
    last_died_at: datetime | None
    deaths: int
    size: int


@dataclass(frozen=True, slots=True)
class DeadLetterContent:
    """A dead letter with its message, as it was before it died.

    `args` and `kwargs` are a task's arguments; if they cannot be read both are None and `undecodable` says why.
    `headers` are the message's own. `body` is the message's body as it is.
    """

    letter: DeadLetter
    args: Sequence[Any] | None
    kwargs: Mapping[str, Any] | None
    undecodable: str | None
    headers: Mapping[str, Any]
    body: bytes


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Which dead letters: those to which everything that is given applies. Nothing given: all.

    `task` is a task's name or a shell pattern (`shop.*`), `app` an application's name, `reason` a part of the reason,
    in any case. `older_than` and `newer_than` are the time since the last death; `limit` is how many at most, in the
    order of the queue.
    """

    task: str | None = None
    app: str | None = None
    reason: str | None = None
    older_than: timedelta | None = None
    newer_than: timedelta | None = None
    limit: int | None = None

    def matches(self, letter: DeadLetter, now: datetime) -> bool:
        """Return True if everything but `limit` applies to a letter. Without a time of death, no age applies."""
        return (
            (self.task is None or fnmatchcase(letter.task_name or "", self.task))
            and (self.app is None or letter.app == self.app)
            and (self.reason is None or self.reason.casefold() in letter.reason.casefold())
            and self._fits_age(letter, now)
        )

    def _fits_age(self, letter: DeadLetter, now: datetime) -> bool:
        if self.older_than is None and self.newer_than is None:
            return True
        if letter.last_died_at is None:
            return False
        age = now - letter.last_died_at
        is_old_enough = self.older_than is None or age >= self.older_than
        return is_old_enough and (self.newer_than is None or age <= self.newer_than)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `retry` or `purge` has done.

    `count` letters have left the queue. `refused` are those that cannot be retried, each with the reason why; they are
    where they were. `missing` are given ids that no letter has.
    """

    count: int
    refused: Sequence[tuple[DeadLetter, str]] = ()
    missing: Sequence[str] = ()


Selection = DeadLetterFilter | Iterable[str]
"""A filter, or the ids of single letters."""

ALL = DeadLetterFilter()


def list_dead_letters(which: DeadLetterFilter = ALL, *, on_progress: Progress | None = None) -> list[DeadLetter]:
    """Return the dead letters that are wanted, in the order of the queue. Nothing is changed.

    While it runs, the letters are held by this process; if it dies, the broker takes them back at once.

    Raises BrokerError if the broker cannot be used, or if another program goes on consuming from the queue.
    """
    return asyncio.run(_list(current_settings(), _Selector(which), on_progress))


def show(letter_id: str) -> DeadLetterContent:
    """Return one dead letter with its message. Nothing is changed.

    Raises NotFoundError if there is none with that id, and what `list_dead_letters` raises.
    """
    return asyncio.run(_show(current_settings(), letter_id))


def retry(which: Selection, *, on_progress: Progress | None = None) -> Outcome:
    """Send the tasks of dead letters again: each exactly once, even if this is interrupted and repeated.

    For each letter, in this order:

    1. The letter is taken from the queue and held. Interrupted here: it goes back as it was.
    2. A fresh message is published to the queue that the task had waited in (`default` if that is not known): the
       same task id and arguments, the attempt one higher, flagged as repeated, its headers made anew. Interrupted
       here: the message may be in that queue or not, and the letter goes back. A repeated retry publishes the same
       attempt once more, and the flag has a worker look the attempt up: whichever message comes second is dropped.
    3. The broker confirms that it keeps the message. Interrupted here: the same as in 2.
    4. The letter is acked and so leaves the queue. Interrupted here: if the ack has not arrived, the same as in 2.

    Several letters of one attempt are retried as one. Records go back to the recorder's queue, where a second copy
    changes nothing. Foreign messages are not touched; `Outcome.refused` holds them.

    Raises BrokerError (UnroutableError, NotConfirmedError, ConnectionLostError ...) at the first letter that cannot be
    sent; the message says how many were sent before, and the others are where they were. Each confirm may take
    `Settings.send_timeout` seconds.
    """
    return asyncio.run(_retry(current_settings(), _Selector(which), on_progress))


def purge(which: Selection, *, on_progress: Progress | None = None) -> Outcome:
    """Delete dead letters for good. The statuses of their tasks stay as they are.

    Raises BrokerError if the broker cannot be used; the message says how many were deleted before.
    """
    return asyncio.run(_purge(current_settings(), _Selector(which), on_progress))


async def _list(settings: Settings, selector: _Selector, on_progress: Progress | None) -> list[DeadLetter]:
    async with _DeadQueue(settings) as queue:
        return [found.letter async for found in _selected(queue, selector, on_progress)]


async def _show(settings: Settings, letter_id: str) -> DeadLetterContent:
    async with _DeadQueue(settings) as queue:
        async for found in _selected(queue, _Selector([letter_id]), None):
            return _content(found)
    raise NotFoundError(f"there is no dead letter {letter_id!r}: it was retried or purged, or the id is wrong")


async def _retry(settings: Settings, selector: _Selector, on_progress: Progress | None) -> Outcome:
    async with _DeadQueue(settings) as queue, _Retrier(settings, queue) as retrier:
        try:
            async for found in _selected(queue, selector, on_progress):
                await retrier.take(found)
            await retrier.finish()
            await queue.check()
        except BrokerError as exc:
            raise _with_count(exc, retrier.count, "retried") from exc
    return Outcome(retrier.count, tuple(retrier.refused), selector.missing())


async def _purge(settings: Settings, selector: _Selector, on_progress: Progress | None) -> Outcome:
    count = 0
    async with _DeadQueue(settings) as queue:
        try:
            async for found in _selected(queue, selector, on_progress):
                queue.remove(found)
                count += 1
            await queue.check()
        except BrokerError as exc:
            raise _with_count(exc, count, "purged") from exc
    return Outcome(count, missing=selector.missing())


async def _selected(queue: _DeadQueue, selector: _Selector, on_progress: Progress | None) -> AsyncIterator[_Found]:
    seen = 0
    async for found in queue.letters():
        seen += 1
        if on_progress is not None:
            on_progress(seen, queue.length)
        if selector.wants(found.letter):
            yield found
        if selector.is_full:
            return


def _with_count(error: BrokerError, count: int, done: str) -> BrokerError:
    return type(error)(f"{error}; {count} dead letters were {done} before that: run it again for the others")


class _Selector:
    """Chooses letters by a filter or by their ids, and remembers which ids it has met."""

    def __init__(self, which: Selection) -> None:
        self._now = datetime.now(UTC)
        self._filter = which if isinstance(which, DeadLetterFilter) else None
        # A text is one id, though Python would take it for many of one character.
        self._ids = () if isinstance(which, DeadLetterFilter) else (which,) if isinstance(which, str) else tuple(which)
        self._wanted = set(self._ids)
        self._met: set[str] = set()
        self._count = 0

    @property
    def is_full(self) -> bool:
        """True when the filter's limit is reached: nothing more is wanted."""
        limit = self._filter.limit if self._filter is not None else None
        return limit is not None and self._count >= limit

    def wants(self, letter: DeadLetter) -> bool:
        """Return True for a letter that is chosen; call it once for each."""
        is_wanted = not self.is_full and self._is_chosen(letter)
        self._count += is_wanted
        return is_wanted

    def missing(self) -> tuple[str, ...]:
        """Return the ids that no letter had so far."""
        return tuple(letter_id for letter_id in self._ids if letter_id not in self._met)

    def _is_chosen(self, letter: DeadLetter) -> bool:
        if self._filter is not None:
            return self._filter.matches(letter, self._now)
        self._met.add(letter.id)
        return letter.id in self._wanted


class _DeadQueue:
    """The queue of dead letters, read once from its front to its end.

    Whatever is read is held until the end, so that nothing comes twice, and goes back when the connection is closed,
    unless it was removed. That keeps the order: the broker takes back at once all that one consumer holds. What is
    returned piece by piece, with nacks, comes back in any order.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._names = Names(settings.namespace)
        self._connection = Connection(settings, "dead letters")
        self._arrived: asyncio.Queue[Delivery] = asyncio.Queue()
        self._held = 0
        self._room = 0
        self._first: Delivery | None = None
        self.length = 0

    async def __aenter__(self) -> _DeadQueue:
        try:
            await self._connection.ready(self._settings.connect_timeout)
            self.length = await self._length_when_nobody_reads()
        except BaseException:
            await _to_its_end(self._connection.close())
            raise
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await _to_its_end(self._connection.close())

    async def letters(self) -> AsyncIterator[_Found]:
        """Read as many letters as there were at the start: what dies meanwhile is not seen.

        Raises ConnectionLostError if the connection is lost: the broker has taken back what is held here.
        """
        for _ in range(self.length):
            delivery = await self._next()
            if delivery is None:
                return
            yield _opened(delivery, self._names)

    def remove(self, found: _Found) -> None:
        """Take a letter out of the queue for good. Raises ConnectionLostError if it is not held any more."""
        if not self._connection.holds(found.delivery):
            raise _lost()
        self._connection.ack(found.delivery)
        self._held -= 1

    async def check(self) -> None:
        """Return if the broker has got all that was removed so far; raises ConnectionLostError if that is unknown."""
        await self._counts()
        self._check_held()

    async def _length_when_nobody_reads(self) -> int:
        """Return the queue's length; what somebody else holds is not counted, so let another look end before."""
        length, consumers = await self._counts()
        deadline = asyncio.get_running_loop().time() + self._settings.send_timeout
        while consumers:
            if asyncio.get_running_loop().time() > deadline:
                raise BrokerError(
                    f"another program consumes from {self._names.dead_queue} and may hold letters of it: wait for it "
                    "to end, or stop it"
                )
            await asyncio.sleep(_POLL_SECONDS)
            length, consumers = await self._counts()
        return length

    async def _counts(self) -> tuple[int, int]:
        try:
            async with asyncio.timeout(self._settings.send_timeout):
                return await self._connection.queue_counts(self._names.dead_queue)
        except TimeoutError:
            raise ConnectionLostError(f"the broker has not answered for {self._settings.send_timeout:g} s") from None

    async def _next(self) -> Delivery | None:
        """Return the next letter; None if there is none, since another program has taken it."""
        deadline = asyncio.get_running_loop().time() + self._settings.send_timeout
        while True:
            await self._make_room()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_IDLE_SECONDS):
                    return self._checked(await self._arrived.get())
            self._check_held()
            waiting, _ = await self._counts()
            if waiting == 0 and self._arrived.empty():
                return None
            if asyncio.get_running_loop().time() > deadline:
                raise BrokerError(f"the broker delivers nothing from {self._names.dead_queue}, which holds {waiting}")

    async def _make_room(self) -> None:
        if self._arrived.empty() and self._held >= self._room:
            prefetch = min(self.length, _MOST_HELD_BY_A_CONSUMER)
            self._room += prefetch
            await self._connection.consume(Subscription(self._names.dead_queue, prefetch, self._on_delivery))

    def _on_delivery(self, delivery: Delivery) -> None:
        self._held += 1
        self._arrived.put_nowait(delivery)

    def _checked(self, delivery: Delivery) -> Delivery:
        """Return a delivery of the first connection; one of a later connection may have been seen before."""
        if self._first is None:
            self._first = delivery
        self._check_held()
        return delivery

    def _check_held(self) -> None:
        # An ack makes no difference here: it is asked whether the connection is the one that all came in.
        if self._first is not None and not self._connection.holds(self._first):
            raise _lost()


class _Retrier:
    """Publishes fresh messages for letters, many at a time, and removes each letter when its message is confirmed."""

    def __init__(self, settings: Settings, queue: _DeadQueue) -> None:
        self._names = Names(settings.namespace)
        self._signer = Signer.of(settings)
        self._timeout = settings.send_timeout
        self._connect_timeout = settings.connect_timeout
        self._queue = queue
        # An alarm of the broker blocks a connection that publishes, and must not stop acks.
        self._publisher = Connection(settings, "dead letters, publisher")
        self._published: dict[str, asyncio.Future[None]] = {}
        self._in_flight: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self.count = 0
        self.refused: list[tuple[DeadLetter, str]] = []

    async def __aenter__(self) -> _Retrier:
        try:
            await self._publisher.ready(self._connect_timeout)
        except BaseException:
            await _to_its_end(self._publisher.close())
            raise
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await _to_its_end(self._close())

    async def take(self, found: _Found) -> None:
        """Begin to retry a letter, or note why it cannot be; raises what an earlier one has failed with."""
        reason = _why_not(found, self._signer)
        if reason is not None:
            self.refused.append((found.letter, reason))
            return
        while len(self._in_flight) >= _IN_FLIGHT:
            await asyncio.wait(self._in_flight, return_when=asyncio.FIRST_COMPLETED)
        self._raise_failure()
        retrying = asyncio.get_running_loop().create_task(self._retry(found))
        self._in_flight.add(retrying)
        retrying.add_done_callback(self._on_done)

    async def finish(self) -> None:
        """Return when all are confirmed and removed; raises what one of them has failed with."""
        if self._in_flight:
            await asyncio.wait(self._in_flight)
        self._raise_failure()

    async def _close(self) -> None:
        # What is published is still confirmed and removed after a failure or Ctrl-C: fewer are sent twice.
        if self._in_flight:
            await asyncio.wait(self._in_flight)
        await self._publisher.close()

    async def _retry(self, found: _Found) -> None:
        # Several letters of one attempt: one message for all, or a worker would have to tell them apart.
        key = _attempt_key(found)
        if key not in self._published:
            self._published[key] = asyncio.ensure_future(self._publish(found))
        await self._published[key]
        self._queue.remove(found)
        self.count += 1

    async def _publish(self, found: _Found) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await self._publisher.publish(*_fresh_message(found, self._names, self._signer))
        except TimeoutError:
            raise ConnectionLostError(
                f"the broker did not confirm within {self._timeout:g} s (is it blocked by an alarm?)"
            ) from None

    def _on_done(self, retrying: asyncio.Task[None]) -> None:
        self._in_flight.discard(retrying)
        self._failure = self._failure or retrying.exception()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


@dataclass(frozen=True, slots=True)
class _Found:
    """A letter taken apart: what is shown of it, and what a retry needs. `identity` is None if it is no task."""

    delivery: Delivery
    letter: DeadLetter
    message: Envelope
    identity: TaskIdentity | None


@dataclass(frozen=True, slots=True)
class _Death:
    """How a message died, as its letter tells."""

    reason: str
    queue: str | None = None
    first: datetime | None = None
    last: datetime | None = None
    count: int = 1


@dataclass(frozen=True, slots=True)
class _About:
    """Which task a message is about, as far as it tells: it may be foreign."""

    task_id: str | None = None
    task_name: str | None = None
    app: str | None = None
    attempt: int | None = None
    error: str | None = None


async def _to_its_end(cleaning: Coroutine[Any, Any, None]) -> None:
    """Clean up, also if Ctrl-C comes in the middle of it."""
    cleaned = asyncio.ensure_future(cleaning)
    try:
        await asyncio.shield(cleaned)
    except asyncio.CancelledError:
        await asyncio.wait([cleaned])
        raise


def _lost() -> ConnectionLostError:
    return ConnectionLostError("the connection to the broker was lost: the dead letters are back in their queue")


def _opened(delivery: Delivery, names: Names) -> _Found:
    """Take a letter apart. Never fails: anything may be in a letter."""
    envelope = delivery.envelope
    message = _message_of(envelope)
    death = _death_of(envelope, message)
    identity = _identity_of(message, names, death.queue)
    kind: Kind = "task" if identity else "record" if _is_record(message, names, death.queue) else "foreign"
    about = _about(message, kind)
    letter = DeadLetter(
        id=_letter_id(envelope),
        kind=kind,
        task_id=about.task_id,
        task_name=about.task_name,
        app=about.app,
        attempt=about.attempt,
        reason=death.reason,
        error=about.error,
        queue=death.queue,
        first_died_at=death.first,
        last_died_at=death.last,
        deaths=death.count,
        size=len(envelope.body),
    )
    return _Found(delivery, letter, message, identity)


def _is_from_a_worker(envelope: Envelope) -> bool:
    return envelope.kind == "dead-letter" and "limetask" in (envelope.headers or {})


def _message_of(envelope: Envelope) -> Envelope:
    """Return the message as it was before it died."""
    headers = envelope.headers or {}
    if not _is_from_a_worker(envelope):
        return replace(envelope, headers=_without_the_brokers(headers))
    return replace(envelope, kind=_text(headers.get("kind")), headers=_mapping(headers.get("original")))


def _without_the_brokers(headers: Mapping[str, Any]) -> dict[str, Any]:
    # A name that is no UTF-8 arrives as bytes.
    return {name: value for name, value in headers.items() if not (isinstance(name, str) and name.startswith("x-"))}


def _identity_of(message: Envelope, names: Names, queue: str | None) -> TaskIdentity | None:
    if queue == names.results_queue or message.kind is not None:
        return None
    try:
        return decode_identity(message)
    except MessageRefusedError:
        return None


def _is_record(message: Envelope, names: Names, queue: str | None) -> bool:
    return queue == names.results_queue and message.kind in _RECORD_KINDS


def _about(message: Envelope, kind: Kind) -> _About:
    if kind == "record":
        return _about_record(message)
    headers = message.headers or {}
    return _About(
        _text(headers.get("task_id")),
        _text(headers.get("task")),
        _text(headers.get("app")),
        _number(headers.get("attempt")),
    )


def _about_record(message: Envelope) -> _About:
    """Return which task's end a record tells; the other kinds are about several tasks or none."""
    try:
        end = decode_completion(message.body)
    except MessageRefusedError:
        return _About()
    error = None if end.error is None else f"{end.error.type}: {end.error.message}"
    return _About(end.task_id, end.task_name, end.app, end.attempt, error)


def _death_of(envelope: Envelope, message: Envelope) -> _Death:
    death = _death_told_by_worker(envelope) if _is_from_a_worker(envelope) else _death_told_by_broker(envelope)
    return _with_former_deaths(death, message)


def _death_told_by_worker(envelope: Envelope) -> _Death:
    headers = envelope.headers or {}
    died_at = _moment(headers.get("died_at"))
    return _Death(_text(headers.get("reason")) or "unknown", _text(headers.get("queue")), died_at, died_at)


def _death_told_by_broker(envelope: Envelope) -> _Death:
    told = (envelope.headers or {}).get("x-death")
    deaths = [_mapping(death) for death in told] if isinstance(told, list) else []
    if not deaths:
        return _Death("unknown: neither a worker nor the broker has set it aside")
    last = deaths[0]  # the broker puts the newest first
    reason = _text(last.get("reason")) or "unknown"
    moments = sorted(moment for moment in (_moment(death.get("time")) for death in deaths) if moment is not None)
    return _Death(
        reason=_BROKER_REASONS.get(reason, reason),
        queue=_text(last.get("queue")),
        first=moments[0] if moments else None,
        last=moments[-1] if moments else None,
        count=sum(_number(death.get("count")) or 1 for death in deaths),
    )


def _with_former_deaths(death: _Death, message: Envelope) -> _Death:
    """Add the deaths of earlier attempts, which a retry has noted in the message."""
    headers = message.headers or {}
    former = _number(headers.get(_DEATHS)) or 0
    return replace(death, first=_moment(headers.get(_FIRST_DIED_AT)) or death.first, count=former + death.count)


def _letter_id(envelope: Envelope) -> str:
    """Return a letter's id: a hash of everything that a look does not change, as the count of deliveries is."""
    headers = envelope.headers or {}
    told = headers.get("x-death")
    deaths = [_mapping(death) for death in told] if isinstance(told, list) else []
    parts = (
        envelope.message_id,
        envelope.kind,
        envelope.content_type,
        sorted((repr(name), repr(value)) for name, value in _without_the_brokers(headers).items()),
        [(death.get("queue"), death.get("reason"), repr(death.get("time"))) for death in deaths],
    )
    hashed = hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass"))
    hashed.update(envelope.body)
    return hashed.hexdigest()[:16]


def _content(found: _Found) -> DeadLetterContent:
    args: Sequence[Any] | None = None
    kwargs: Mapping[str, Any] | None = None
    undecodable: str | None = None
    try:
        args, kwargs = decode_arguments(found.message.body)
    except MessageRefusedError as exc:
        undecodable = str(exc)
    return DeadLetterContent(found.letter, args, kwargs, undecodable, found.message.headers or {}, found.message.body)


def _why_not(found: _Found, signer: Signer) -> str | None:
    """Return why a letter cannot be retried, None if it can.

    A retry is signed, so it must not vouch for a message that nobody with a key has signed.
    """
    if found.letter.kind == "record":
        return None
    if found.identity is None:
        return "it is no task of limetask"
    if found.message.content_type != MSGPACK:
        return f"its content type is {found.message.content_type!r}, not {MSGPACK}"
    if found.identity.attempt >= MAX_ATTEMPT:
        return "it has no attempts left"
    try:
        decode_identity(found.message, signer)
    except MessageRefusedError as exc:
        return str(exc)
    return None


def _attempt_key(found: _Found) -> str:
    identity = found.identity
    return found.letter.id if identity is None else f"{identity.task_id} {identity.attempt}"


def _fresh_message(found: _Found, names: Names, signer: Signer) -> tuple[str, str, Envelope]:
    """Return exchange, routing key and message of a retry, with headers made anew.

    They are never copied: RabbitMQ up to 3.13 drops a message that comes back with its `x-death`, without a word.
    """
    message = found.message
    if found.identity is None:
        return "", names.results_queue, Envelope(message.body, message.content_type, new_message_id(), message.kind)
    next_attempt = replace(found.identity, attempt=found.identity.attempt + 1)
    envelope = encode_task(next_attempt, message.body, signer, repeated=True)
    return names.tasks_exchange, _task_queue(found.letter.queue, names), _with_past(envelope, found.letter)


def _task_queue(queue: str | None, names: Names) -> str:
    """Return the queue that a task had waited in, if it is one of ours; a worker moves it if that is not right."""
    known = {names.task_queue(qos) for qos in QOS_CATEGORIES}
    return queue if queue in known else names.task_queue("default")


def _with_past(envelope: Envelope, letter: DeadLetter) -> Envelope:
    past: dict[str, Any] = {_DEATHS: letter.deaths}
    if letter.first_died_at is not None:
        past[_FIRST_DIED_AT] = letter.first_died_at.isoformat()
    return replace(envelope, headers={**(envelope.headers or {}), **past})


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object) -> int | None:
    return int(value) if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _moment(value: object) -> datetime | None:
    """Return a time in UTC, from the broker's timestamp or a worker's text; None if it is neither."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        if not isinstance(moment, datetime):
            return None
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
