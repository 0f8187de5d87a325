"""Acts on what deliveries tell, and sets aside what nobody can act on: a strange record must not stop all others."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TypeAlias, TypeVar

from limetask.amqp import Connection, Delivery
from limetask.codec import encode_dead_headers, encode_dead_letter
from limetask.errors import MessageRefusedError, TooLargeForBrokerError
from limetask.message import Claim, Decision, Verdict
from limetask.records import encode_verdict
from limetask.topology import Names
from limetask_worker.store_writer import RecordRejectedError

logger = logging.getLogger(__name__)

T = TypeVar("T")
Decode: TypeAlias = Callable[[Delivery], Sequence[T]]
Act: TypeAlias = Callable[[Sequence[T]], Awaitable[None]]
Told: TypeAlias = Sequence[tuple[Delivery, Sequence[T]]]

_FORESEEN = (MessageRefusedError, RecordRejectedError)
# What code raises that was given a strange value. Whatever else there is, a broken store or machine, is not the
# record's fault: it is raised, and the record comes again.
_REFUSED = (*_FORESEEN, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)


class Acting:
    """Acts on runs of deliveries that tell of the same kind of thing. What it sets aside becomes a dead letter."""

    def __init__(self, publishing: Connection, names: Names) -> None:
        self._publishing = publishing
        self._names = names

    async def each(
        self, group: Iterable[Delivery], decode: Callable[[bytes], T], act: Callable[[T], Awaitable[None]]
    ) -> None:
        """Act on each delivery by itself."""
        for delivery in group:
            try:
                await act(decode(delivery.envelope.body))
            except _REFUSED as exc:
                await self._set_aside(delivery, exc)

    async def together(
        self, group: Iterable[Delivery], decode: Decode[T], act: Act[T], salvage: Decode[T] | None = None
    ) -> None:
        """Act on all that a run of deliveries holds at once, and if something of it is refused, on the rest.

        `salvage` returns what can be read of a delivery that `decode` refuses.
        """
        told: list[tuple[Delivery, Sequence[T]]] = []
        for delivery in group:
            try:
                told.append((delivery, decode(delivery)))
            except _REFUSED as exc:
                await self._set_aside(delivery, exc)
                if salvage is not None:
                    told.append((delivery, salvage(delivery)))
        await self._act(told, act)

    async def set_aside(self, delivery: Delivery, reason: str) -> None:
        """Make a dead letter of a delivery."""
        logger.error("dead-lettered a message from %s: %s", delivery.queue, reason)
        letter = encode_dead_letter(delivery.envelope, delivery.queue, reason, datetime.now(UTC))
        try:
            await self._publishing.publish_if_it_fits(self._names.dead_exchange, "", letter)
        except TooLargeForBrokerError:
            letter = encode_dead_headers(delivery.envelope, delivery.queue, reason, datetime.now(UTC))
            await self._publishing.publish_until_confirmed(self._names.dead_exchange, "", letter)

    async def _act(self, told: Told[T], act: Act[T]) -> None:
        try:
            await act([value for _, values in told for value in values])
        except _REFUSED:
            await self._act_apart(told, act)

    async def _act_apart(self, told: Told[T], act: Act[T]) -> None:
        """Look for what was refused, by halves: few strange records among many must not take a transaction each."""
        if len(told) > 1:
            middle = len(told) // 2
            await self._act(told[:middle], act)
            await self._act(told[middle:], act)
            return
        for delivery, values in told:
            refusals = [refusal for value in values if (refusal := await self._refusal(value, act)) is not None]
            if refusals:
                await self._set_aside(delivery, refusals[0])

    async def _refusal(self, value: T, act: Act[T]) -> Exception | None:
        try:
            await act([value])
        except _REFUSED as exc:
            if isinstance(value, Claim):
                self._answer(value)
            return exc
        return None

    def _answer(self, claim: Claim) -> None:
        """Tell a worker that its task must not run, or it would ask for ever."""
        start = claim.start
        if self._names.is_reply_key(claim.reply_to):
            verdict = Verdict(start.task_id, start.attempt, start.started_at, Decision.REFUSED, begun=0)
            sent = self._publishing.publish(self._names.events_exchange, claim.reply_to, encode_verdict(verdict))
            sent.add_done_callback(lambda done: done.exception())  # whoever hears nothing asks again

    async def _set_aside(self, delivery: Delivery, error: Exception) -> None:
        if isinstance(error, _FORESEEN):
            await self.set_aside(delivery, str(error))
        else:
            logger.error("a record could not be acted on", exc_info=error)
            await self.set_aside(delivery, f"it could not be acted on: {type(error).__name__}: {error}")
