"""What can be done with dead letters: list, show, retry and purge them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from limetask.dead_letters.choice import ALL, DeadLetterFilter, Selection, Selector
from limetask.dead_letters.letter import DeadLetter, DeadLetterContent, Found, content
from limetask.dead_letters.queue import DeadQueue
from limetask.dead_letters.retrying import Retrier
from limetask.errors import BrokerError, NotFoundError
from limetask.settings import Settings, current_settings

Progress = Callable[[int, int], None]
"""Is told how many letters have been looked at, and of how many."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `retry` or `purge` has done.

    `count` letters have left the queue. `refused` are those that cannot be retried, each with the reason why; they are
    where they were. `missing` are given ids that no letter has.
    """

    count: int
    refused: Sequence[tuple[DeadLetter, str]] = ()
    missing: Sequence[str] = ()


def list_dead_letters(which: DeadLetterFilter = ALL, *, on_progress: Progress | None = None) -> list[DeadLetter]:
    """Return the dead letters that are wanted, in the order of the queue. Nothing is changed.

    While it runs, the letters are held by this process; if it dies, the broker takes them back at once.

    Raises BrokerError if the broker cannot be used, or if another program goes on consuming from the queue.
    """
    return asyncio.run(_list(current_settings(), Selector(which), on_progress))


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

    Several letters of one message are retried as one. Records go back to the recorder's queue, where a second copy
    changes nothing, unless they are out of date. These, foreign messages, and what is larger than the broker takes are
    not touched; `Outcome.refused` holds them.

    Raises BrokerError (UnroutableError, NotConfirmedError, ConnectionLostError ...) at the first letter that cannot be
    sent; the message says how many were sent before, and the others are where they were. Each confirm may take
    `Settings.send_timeout` seconds.
    """
    return asyncio.run(_retry(current_settings(), Selector(which), on_progress))


def purge(which: Selection, *, on_progress: Progress | None = None) -> Outcome:
    """Delete dead letters for good. The statuses of their tasks stay as they are.

    Raises BrokerError if the broker cannot be used; the message says how many were deleted before.
    """
    return asyncio.run(_purge(current_settings(), Selector(which), on_progress))


async def _list(settings: Settings, selector: Selector, on_progress: Progress | None) -> list[DeadLetter]:
    async with DeadQueue(settings) as queue:
        return [found.letter async for found in _selected(queue, selector, on_progress)]


async def _show(settings: Settings, letter_id: str) -> DeadLetterContent:
    async with DeadQueue(settings) as queue:
        async for found in _selected(queue, Selector([letter_id]), None):
            return content(found)
    raise NotFoundError(f"there is no dead letter {letter_id!r}: it was retried or purged, or the id is wrong")


async def _retry(settings: Settings, selector: Selector, on_progress: Progress | None) -> Outcome:
    async with DeadQueue(settings) as queue, Retrier(settings, queue) as retrier:
        try:
            async for found in _selected(queue, selector, on_progress):
                await retrier.take(found)
            await retrier.finish()
            await queue.check()
        except BrokerError as exc:
            raise _with_count(exc, retrier.count, "retried") from exc
    return Outcome(retrier.count, tuple(retrier.refused), selector.missing())


async def _purge(settings: Settings, selector: Selector, on_progress: Progress | None) -> Outcome:
    count = 0
    async with DeadQueue(settings) as queue:
        try:
            async for found in _selected(queue, selector, on_progress):
                queue.remove(found)
                count += 1
            await queue.check()
        except BrokerError as exc:
            raise _with_count(exc, count, "purged") from exc
    return Outcome(count, missing=selector.missing())


async def _selected(queue: DeadQueue, selector: Selector, on_progress: Progress | None) -> AsyncIterator[Found]:
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
