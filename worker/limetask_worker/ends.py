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
from limetask_worker.outbox import Outbox, UnreportedEnd
from limetask_worker.too_large import shorter_end
from limetask_worker.work import Work

logger = logging.getLogger(__name__)

# An end that was not confirmed in this time is kept where the supervisor finds it, should this process die.
_KEEP_AFTER_SECONDS = 0.5


class Ends:
    """Publishes each end until the broker has confirmed it, and keeps it where the supervisor finds it till then."""

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
        self._unreported: dict[tuple[str, int], tuple[str, Envelope]] = {}
        self._unreported_for_long: set[tuple[str, int]] = set()
        self._keeping: asyncio.TimerHandle | None = None

    def publish(
        self,
        work: Work,
        completion: Completion,
        envelope: Envelope,
        on_confirmed: Callable[[], None],
        copy_to: str | None,
    ) -> None:
        """Publish until it is confirmed, then call `on_confirmed`; without an asyncio task if all is well.

        `envelope` has the completion with its result, which is only there. `copy_to` is the sender's reply key.
        """
        routing_key = completion.routing_key
        self._unreported[work.key] = routing_key, envelope
        if self._keeping is None:
            self._keep_unreported()

        def on_answer(confirmed: asyncio.Future[None]) -> None:
            self._unsettled.discard(confirmed)
            error = confirmed.exception()
            if error is None:
                is_confirmed()
            else:
                self._start(publish_again(error))

        async def publish_again(error: BaseException) -> None:
            try:
                if isinstance(error, TooLargeForBrokerError):
                    raise error
                logger.warning("a record is kept until the broker takes it: %s", error)
                await self._publishing.publish_if_it_fits(self._exchange, routing_key, envelope)
            except TooLargeForBrokerError as exc:
                await self._publish_shorter(work, completion, exc)
            is_confirmed()

        def is_confirmed() -> None:
            self._unreported.pop(work.key, None)
            if not self._outbox.is_empty:
                self._outbox.forget(*work.key)
            on_confirmed()

        confirmed = self._publishing.publish(self._exchange, routing_key, envelope, copy_to)
        self._unsettled.add(confirmed)
        confirmed.add_done_callback(on_answer)

    async def _publish_shorter(self, work: Work, completion: Completion, refused: TooLargeForBrokerError) -> None:
        """Publish an end without what the broker does not take.

        It replaces the other for the supervisor before the broker can have it. Should this process die first, that one
        meets the same refusal, and does the same.
        """
        logger.error("its end is told as a failure: %s", refused, extra={WORK_FIELD: work})
        end = shorter_end(completion, refused)
        told = end.routing_key, encode_completion(end)
        self._unreported[work.key] = told
        self._outbox.replace(UnreportedEnd(*work.key, *told))
        await self._publishing.publish_until_confirmed(self._exchange, *told)

    def _keep_unreported(self) -> None:
        """Keep what was unreported the last time and still is; look again as long as anything is."""
        for key in self._unreported_for_long & self._unreported.keys():
            self._outbox.keep(UnreportedEnd(*key, *self._unreported[key]))
        self._unreported_for_long = set(self._unreported)
        loop = asyncio.get_running_loop()
        self._keeping = loop.call_later(_KEEP_AFTER_SECONDS, self._keep_unreported) if self._unreported else None
