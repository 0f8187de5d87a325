"""Whether every event handler has somebody who runs it, and does not fall behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from limetask.doctor.finding import Finding
from limetask.errors import BrokerError, StoreError
from limetask.handler_registry import KnownHandler, list_handlers
from limetask.settings import Settings

MANY_EVENTS = 100_000
"""So many undelivered events, a handler is too slow, or stands still."""


def examine_handlers(settings: Settings) -> list[Finding]:
    """Look at the queues of all handlers that workers have declared: one finding for all, or one for each amiss."""
    try:
        known = list_handlers(settings)
    except (BrokerError, StoreError) as exc:
        return [Finding("event handlers", f"they could not be looked at: {exc}", "mend what it says")]
    return list(_amiss(known)) or [_all_well(known)]


def _amiss(known: Iterable[KnownHandler]) -> Iterator[Finding]:
    for handler in known:
        check = f"event handler {handler.name}"
        if handler.is_orphaned():
            yield Finding(check, *_orphaned(handler))
        elif handler.waiting is None:
            text = f"a worker declares it, and its queue {handler.queue} is gone: its events are lost"
            yield Finding(check, text, "a worker makes it anew within a minute: see its log if this stays")
        elif handler.waiting >= MANY_EVENTS:
            yield Finding(check, *_behind(handler))


def _orphaned(handler: KnownHandler) -> tuple[str, str]:
    waiting = "its queue is gone" if handler.waiting is None else f"{handler.waiting:,} events wait in {handler.queue}"
    text = f"orphaned: no worker has declared it for more than 10 minutes, nobody takes its events; {waiting}"
    remedy = (
        f"if its code is gone: limetask handlers prune {handler.name}. If not, start a worker that imports it: "
        "limetask-worker my_package --roles events"
    )
    return text, remedy


def _behind(handler: KnownHandler) -> tuple[str, str]:
    text = (
        f"{handler.waiting:,} events wait, and {handler.consumers} processes take them. The queue holds 1 GiB, and "
        "then its oldest events become dead letters; how many bytes it has cannot be asked for over AMQP"
    )
    remedy = (
        "start more workers with the events role, or raise the handler's concurrency. On the broker's host, "
        "`rabbitmqctl list_queues name message_bytes` shows how full it is"
    )
    return text, remedy


def _all_well(known: list[KnownHandler]) -> Finding:
    if not known:
        return Finding("event handlers", "no worker has declared any")
    waiting = sum(handler.waiting or 0 for handler in known)
    idle = [handler.name for handler in known if not handler.consumers]
    text = f"{len(known)} are declared, {waiting:,} events wait for them"
    if idle:
        return Finding("event handlers", f"{text}; {', '.join(idle)} had a worker within 10 minutes, and has none now")
    return Finding("event handlers", f"{text}, and each has a process that takes them")
