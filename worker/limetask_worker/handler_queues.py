"""The queues of shared event handlers: they stay bound to what running code declares, and to nothing else for long.

Workers bind what they need themselves, and tell of it every minute. Nobody tells that a binding is not needed any more:
during a deploy two versions of the code run side by side, and the older one may be started last. So a binding goes only
after it was declared by no worker for a while, in which others have declared the same handler all the time. A binding
that stays too long brings events that the handler ignores; one that goes too early would lose events.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from limetask.amqp import Connection
from limetask.errors import BrokerError, BrokerRefusedError
from limetask.message import HandlerBindings, HandlerGone
from limetask.topology import Binding, Names, Topology
from limetask_worker.patient_store import PatientStore

logger = logging.getLogger(__name__)

KEEP_SECONDS = 300.0
"""So long a binding stays that is not declared any more."""

# Whoever has heard nothing for so long was perhaps deaf, and cannot say what was not declared meanwhile. This and the
# minute between two declarations of one worker together are less than KEEP_SECONDS.
_DEAF_SECONDS = 150.0
_REST_SECONDS = 60.0


class HandlerQueues:
    """Records what workers declare, and binds the queues accordingly."""

    def __init__(
        self,
        store: PatientStore,
        publishing: Connection,
        names: Names,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` returns seconds, and is one that nobody sets."""
        self._store = store
        self._publishing = publishing
        self._names = names
        self._clock = clock
        self._heard: dict[str, _Heard] = {}
        self._has_complained = False

    async def note(self, handlers: Sequence[HandlerBindings]) -> None:
        """Record what a worker has declared: it has bound it already."""
        recorded = await self._store.merge_handlers(handlers, datetime.now(UTC))
        for handler in handlers:
            heard = self._heard.setdefault(handler.name, _Heard())
            heard.note(handler.bindings, recorded[handler.name], self._clock())

    async def note_gone(self, gone: HandlerGone) -> None:
        """Forget a handler whose queue was deleted."""
        await self._store.delete_handler(gone)
        self._heard.pop(gone.name, None)

    async def tend(self) -> None:
        """Bind what is declared and may be unbound, and unbind what is not declared any more. Call it now and then."""
        for name, heard in list(self._heard.items()):
            if self._clock() < heard.rests_until:
                continue
            try:
                await self._bind(name, heard)
                await self._unbind_old(name, heard)
            except BrokerError as exc:
                heard.rests_until = self._clock() + _REST_SECONDS
                self._complain_once(name, exc)

    async def _bind(self, name: str, heard: _Heard) -> None:
        """Bind what was heard for the first time: it may have been unbound here just after its worker had bound it."""
        unsure = frozenset(heard.unsure)
        if unsure:
            await self._publishing.declare(Topology((), (), self._bindings(name, unsure)))
            heard.unsure -= unsure

    async def _unbind_old(self, name: str, heard: _Heard) -> None:
        """Unbind first, and then record it: should this end in between, it is done again."""
        old = heard.old()
        if not old:
            return
        await self._publishing.unbind(self._bindings(name, old))
        logger.info("event handler %s: no code declares %s any more, unbound", name, ", ".join(sorted(old)))
        gone = heard.drop_unless_heard_since(old)
        await self._store.forget_bindings(name, gone)

    def _bindings(self, name: str, keys: Iterable[str]) -> tuple[Binding, ...]:
        queue = self._names.handler_queue(name)
        return tuple(Binding(queue, self._names.events_exchange, key) for key in sorted(keys))

    def _complain_once(self, name: str, error: BrokerError) -> None:
        if isinstance(error, BrokerRefusedError) and not self._has_complained:
            self._has_complained = True
            logger.error(
                "the queue of event handler %s cannot be bound to what its code declares now, so it may get events "
                "that the handler ignores. The recorder's user needs the permissions to write to %s and to read from "
                "%s: %s",
                name,
                self._names.handler_queue("*"),
                self._names.events_exchange,
                error,
            )


class _Heard:
    """What this process has heard of one handler: when each binding was declared last, in seconds of the clock."""

    def __init__(self) -> None:
        self.unsure: set[str] = set()
        self.rests_until = 0.0
        self._at: dict[str, float] = {}
        self._newest = 0.0

    def note(self, declared: Iterable[str], recorded: Iterable[str], now: float) -> None:
        if now - self._newest > _DEAF_SECONDS:
            self._at.clear()  # every binding has its whole time again
        self._newest = now
        declared = frozenset(declared)
        self.unsure |= declared - self._at.keys()
        self._at = dict.fromkeys(recorded, now) | self._at | dict.fromkeys(declared, now)

    def old(self) -> dict[str, float]:
        """Return the bindings that others have outlived, with the moments when they were declared last."""
        return {binding: at for binding, at in self._at.items() if self._newest - at > KEEP_SECONDS}

    def drop_unless_heard_since(self, old: dict[str, float]) -> list[str]:
        """Forget unbound bindings, and return them; what was declared meanwhile has to be bound again."""
        heard_since = {binding for binding, at in old.items() if self._at.get(binding, at) != at}
        self.unsure |= heard_since
        gone = [binding for binding in old if binding not in heard_since]
        for binding in gone:
            self._at.pop(binding, None)
        return gone
