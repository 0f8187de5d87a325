"""Which shared event handlers exist, with their queues: list them, and prune those whose code is gone.

The status store has what workers have declared, as the recorder heard it, and the broker has the queues. Every function
opens connections of its own for the time of its call. They can be called in any thread, but not where an asyncio loop
runs already: there, use `asyncio.to_thread`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from limetask.amqp import Connection
from limetask.errors import BrokerError, BrokerUnreachableError, NotFoundError
from limetask.message import HandlerGone
from limetask.records import encode_handler_gone
from limetask.settings import Settings, current_settings
from limetask.store import Store
from limetask.topology import Names
from limetask.unused_queues import LOOK_SECONDS, look_for_use

LONG_UNHEARD = timedelta(minutes=10)
"""A worker declares its handlers every minute: whatever was not declared for so long, no worker has."""

# Some declarations may be late, as may be the recorder that hears of them.
_LATELY = timedelta(minutes=3)


@dataclass(frozen=True, slots=True)
class KnownHandler:
    """A shared event handler and its queue.

    `bindings` are the topic patterns that the queue is bound to, as far as is recorded. `declared_at` is when a worker
    last declared the handler, None if no worker ever did. `waiting` events are in the queue, and `consumers` take them;
    both are None if there is no such queue.
    """

    name: str
    queue: str
    bindings: tuple[str, ...]
    declared_at: datetime | None
    waiting: int | None
    consumers: int | None

    def is_orphaned(self, unheard: timedelta = LONG_UNHEARD) -> bool:
        """Return True if no worker has declared it for so long, and nobody takes its events."""
        is_long_ago = self.declared_at is None or datetime.now(UTC) - self.declared_at >= unheard
        return is_long_ago and not self.consumers


@dataclass(frozen=True, slots=True)
class Pruned:
    """What `prune_handlers` has done.

    `deleted` has for each handler how many undelivered events were deleted with its queue. `in_use` are those that have
    a worker again: they are as they were.
    """

    deleted: dict[str, int]
    in_use: tuple[str, ...]


def list_handlers(settings: Settings | None = None) -> list[KnownHandler]:
    """Return all shared event handlers that a worker has declared and nobody has pruned, by name.

    `settings` are by default those in force. Raises StoreError and BrokerError if store or broker cannot be used.
    """
    return asyncio.run(_list(settings or current_settings()))


def find_handlers(names: Iterable[str]) -> list[KnownHandler]:
    """Return the handlers with these names: declared ones, and such as have a queue and no record.

    Raises NotFoundError for a name that has neither, and what `list_handlers` raises.
    """
    return asyncio.run(_find(current_settings(), sorted(set(names))))


def find_orphans(unheard: timedelta = LONG_UNHEARD) -> list[KnownHandler]:
    """Return the handlers that no worker has declared for that long, and whose events nobody takes.

    Raises BrokerError while no recorder runs: then nobody notes what workers declare. Raises what `list_handlers`
    raises.
    """
    return asyncio.run(_find_orphans(current_settings(), unheard))


def prune_handlers(names: Iterable[str], *, look_for: float = LOOK_SECONDS) -> Pruned:
    """Delete the queues of these handlers, with the events in them, unless somebody consumes from them.

    The broker cannot do that at once, and shows an empty queue without consumers while one does not answer it. So a
    queue that holds nothing is looked at for `look_for` seconds before. The recorder, which alone writes the store, is
    told and forgets the handlers. A worker that begins to consume in the very moment of the deletion makes its queue
    anew; what happens until then does not reach it.

    Raises BrokerError if the broker cannot be used or refuses, or if it is in doubt whether a handler is in use, as
    when a worker has declared it within three minutes: its queue is as it was. Raises StoreError if the store cannot be
    read. What was deleted before stays deleted: run it again.
    """
    return asyncio.run(_prune(current_settings(), sorted(set(names)), look_for))


async def _list(settings: Settings) -> list[KnownHandler]:
    async with _connected(settings) as connection:
        return await _look(settings, connection)


async def _find(settings: Settings, names: Sequence[str]) -> list[KnownHandler]:
    async with _connected(settings) as connection:
        known = {handler.name: handler for handler in await _look(settings, connection)}
        found = [known.get(name) or await _seen(settings, connection, name, (), None) for name in names]
    missing = [handler.name for handler in found if handler.declared_at is None and handler.waiting is None]
    if missing:
        raise NotFoundError(f"there is no event handler {', '.join(missing)}: `limetask handlers list` has all")
    return found


async def _find_orphans(settings: Settings, unheard: timedelta) -> list[KnownHandler]:
    async with _connected(settings) as connection:
        records = Names(settings.namespace).results_queue
        waiting, recorders = await connection.queue_counts(records)
        if not recorders:
            raise BrokerError(
                f"no recorder runs, and {waiting:,} records wait: it is not known what workers have declared lately. "
                "Start limetask-worker --roles recorder, or name the handlers"
            )
        return [handler for handler in await _look(settings, connection) if handler.is_orphaned(unheard)]


async def _look(settings: Settings, connection: Connection) -> list[KnownHandler]:
    with closing(Store(settings.resolved_store_url)) as store:
        recorded = await asyncio.to_thread(store.handlers)
    return [await _seen(settings, connection, one.name, one.bindings, one.heard_at) for one in recorded]


async def _seen(
    settings: Settings, connection: Connection, name: str, bindings: tuple[str, ...], declared_at: datetime | None
) -> KnownHandler:
    queue = Names(settings.namespace).handler_queue(name)
    waiting, consumers = await connection.find_queue(queue) or (None, None)
    return KnownHandler(name, queue, bindings, declared_at, waiting, consumers)


async def _prune(settings: Settings, names: Sequence[str], look_for: float) -> Pruned:
    queues = {name: Names(settings.namespace).handler_queue(name) for name in names}
    deleted: dict[str, int] = {}
    async with _connected(settings) as connection:
        use = await look_for_use(connection, queues.values(), look_for)
        running = await _declared_just_now(settings)
        for name, queue in queues.items():
            if queue in use.unused | use.missing and name not in running:
                # Interrupted after the deletion, it is listed and pruned once more.
                deleted[name] = await connection.delete(queue) if queue in use.unused else 0
                await _tell_recorder(settings, connection, HandlerGone(name, datetime.now(UTC)))
    in_use = tuple(name for name, queue in queues.items() if queue in use.consumed)
    in_doubt = [name for name in names if name not in deleted and name not in in_use]
    if in_doubt:
        raise _in_doubt(in_doubt, len(deleted))
    return Pruned(deleted, in_use)


async def _declared_just_now(settings: Settings) -> set[str]:
    """Return the handlers that a running worker has: one that stands still in a long event may have no consumer."""
    with closing(Store(settings.resolved_store_url)) as store:
        recorded = await asyncio.to_thread(store.handlers)
    return {one.name for one in recorded if datetime.now(UTC) - one.heard_at < _LATELY}


def _in_doubt(names: Sequence[str], deleted: int) -> BrokerError:
    return BrokerError(
        f"{', '.join(names)}: it is in doubt whether it is in use, so its queue was left alone, and {deleted} others "
        "were deleted. Either a worker has declared it within three minutes: stop it, and prune again three minutes "
        "later. Or its queue does not answer, or events went away while nobody was seen to consume them: prune again "
        "when `rabbitmq-queues quorum_status QUEUE` shows a leader"
    )


async def _tell_recorder(settings: Settings, connection: Connection, gone: HandlerGone) -> None:
    try:
        async with asyncio.timeout(settings.send_timeout):
            await connection.publish("", Names(settings.namespace).results_queue, encode_handler_gone(gone))
    except TimeoutError:
        raise BrokerUnreachableError(
            f"the queue of {gone.name} is deleted, and the broker took no message for {settings.send_timeout:g} s: "
            "prune again later, so that the recorder hears of it"
        ) from None


@asynccontextmanager
async def _connected(settings: Settings) -> AsyncIterator[Connection]:
    connection = Connection(settings, "handlers")
    try:
        await connection.ready(settings.connect_timeout)
        yield connection
    finally:
        await connection.close()
