"""The ends of tasks on their way to the broker, which must get each, and to the supervisor should this process die."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine

from limetask.amqp import Connection
from limetask.errors import TooLargeForBrokerError
from limetask.message import Completion, Envelope
from limetask.records import encode_completion
from limetask_worker.log_thread import WORK_FIELD
from limetask_worker.outbox import Outbox
from limetask_worker.too_large import shorter_end
from limetask_worker.work import Work

logger = logging.getLogger(__name__)


class Ends:
    """Publishes each end until the broker has confirmed it, and keeps it where the supervisor finds it till then.

    Kept before it is published, so that no death leaves an end with the broker, or on its way there, of which the
    supervisor says otherwise.
    """

    def __init__(
        self,
        publishing: Connection,
        exchange: str,
        outbox: Outbox,
        unsettled: set[asyncio.Future[None]],
        start: Callable[[Coroutine[None, None, None]], object],
    ) -> None:
        """`unsettled` is what somebody waits for at the end of this process; `start` begins more of it."""
        self._publishing = publishing
        self._exchange = exchange
        self._outbox = outbox
        self._unsettled = unsettled
        self._start = start

    def publish(
        self,
        work: Work,
        completion: Completion,
        envelope: Envelope,
        on_confirmed: Callable[[Work], None],
        copy_to: str | None,
    ) -> None:
        """Publish until it is confirmed, then call `on_confirmed`; without an asyncio task if all is well.

        `envelope` has the completion with its result, which is only there. `copy_to` is the sender's reply key.
        """
        if not work.mark.note_end(envelope.body):
            self._keep_large(work, envelope.body)

        def on_answer(confirmed: asyncio.Future[None]) -> None:
            self._unsettled.discard(confirmed)
            error = confirmed.exception()
            if error is None:
                self._forget(work, on_confirmed)
            else:
                self._start(self._publish_again(work, completion, envelope, on_confirmed, error))

        confirmed = self._publishing.publish(self._exchange, completion.routing_key, envelope, copy_to)
        self._unsettled.add(confirmed)
        confirmed.add_done_callback(on_answer)

    def _forget(self, work: Work, on_confirmed: Callable[[Work], None]) -> None:
        if not self._outbox.is_empty:
            self._outbox.forget(work.key)
        on_confirmed(work)  # which releases the mark

    async def _publish_again(
        self,
        work: Work,
        completion: Completion,
        envelope: Envelope,
        on_confirmed: Callable[[Work], None],
        error: BaseException,
    ) -> None:
        try:
            if isinstance(error, TooLargeForBrokerError):
                raise error
            logger.warning("a record is kept until the broker takes it: %s", error)
            await self._publishing.publish_if_it_fits(self._exchange, completion.routing_key, envelope)
        except TooLargeForBrokerError as exc:
            await self._publish_shorter(work, completion, exc)
        self._forget(work, on_confirmed)

    async def _publish_shorter(self, work: Work, completion: Completion, refused: TooLargeForBrokerError) -> None:
        """Publish an end without what the broker does not take.

        It replaces the other for the supervisor before the broker can have it. Should this process die first, that one
        meets the same refusal, and does the same.
        """
        logger.error("its end is told as a failure: %s", refused, extra={WORK_FIELD: work})
        end = shorter_end(completion, refused)
        shorter = encode_completion(end)
        if self._keep_large(work, shorter.body):
            work.mark.forget_end()
        await self._publishing.publish_until_confirmed(self._exchange, end.routing_key, shorter)

    def _keep_large(self, work: Work, event: bytes) -> bool:
        """Keep an end in the outbox; return False, and say so, if that has no room."""
        try:
            self._outbox.keep(work.key, event)
        except OSError as exc:
            logger.warning("its end is lost if this process dies now: %s", exc, extra={WORK_FIELD: work})
            return False
        return True
