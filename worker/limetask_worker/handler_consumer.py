"""Takes events from one handler's queue and brings each to its end: handled, tried again later, or set aside."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

from limetask.amqp import Connection, Delivery, Subscription
from limetask.codec import encode_dead_letter, new_message_id
from limetask.delays import Delays
from limetask.errors import MessageRefusedError, UnknownApplicationError
from limetask.events import Event, decode_event
from limetask.handlers import HandlerDeclaration
from limetask.message import Envelope
from limetask.topology import Names
from limetask_worker.handler_executor import HandlerExecutor

logger = logging.getLogger(__name__)

# Events on their way here beside those that are being handled.
_AHEAD = 8


class HandlerConsumer:
    """Runs one handler for the events in its queue, `concurrency` at a time, in their order.

    An event is acked when the handler has returned, or when its retry or its dead letter is confirmed. Should this
    process die before that, the broker delivers it again.
    """

    def __init__(
        self,
        handler: HandlerDeclaration,
        queue: str,
        executor: HandlerExecutor,
        consuming: Connection,
        publishing: Connection,
        names: Names,
    ) -> None:
        self._handler = handler
        self._queue = queue
        self._executor = executor
        self._consuming = consuming
        self._publishing = publishing
        self._names = names
        self._delays = Delays(publishing, names)
        self._waiting: asyncio.Queue[Delivery | None] = asyncio.Queue()
        self._runners: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Take events, now and after every reconnect."""
        loop = asyncio.get_running_loop()
        self._runners = [loop.create_task(self._run()) for _ in range(self._handler.concurrency)]
        prefetch = self._handler.concurrency + _AHEAD
        await self._consuming.consume(Subscription(self._queue, prefetch, self._waiting.put_nowait))

    async def stop(self) -> None:
        """Return when what has begun is over; its consumer is cancelled already. What has not begun goes back."""
        while not self._waiting.empty():
            delivery = self._waiting.get_nowait()
            if delivery is not None:
                self._consuming.give_back(delivery)
        for _ in self._runners:
            self._waiting.put_nowait(None)
        if self._runners:
            await asyncio.wait(self._runners)
        self._executor.close()

    async def _run(self) -> None:
        while (delivery := await self._waiting.get()) is not None:
            if self._consuming.holds(delivery):  # else it is delivered again
                await self._bring_to_its_end(delivery)

    async def _bring_to_its_end(self, delivery: Delivery) -> None:
        try:
            event = decode_event(delivery.envelope)
        except MessageRefusedError as exc:
            await self._set_aside(delivery, str(exc))
        else:
            if self._handler.wants(event.routing_key, event.task_name):
                await self._handle(delivery, event)
        self._consuming.ack(delivery)

    async def _handle(self, delivery: Delivery, event: Event) -> None:
        failure = await self._executor.run(event)
        if failure is None:
            logger.debug("%s has handled %s", self._handler.name, event.id)
            return
        failures = _retries(delivery.envelope) + 1
        is_hopeless = isinstance(failure.error, UnknownApplicationError)
        delay = None if is_hopeless else self._handler.retry.delay_before(failures)
        failure.context.run(
            logger.error,
            "event handler %s failed for event %s (%s, app=%s)%s",
            *(self._handler.name, event.id, event.routing_key, event.app),
            "" if delay is None else f"; it is handled again in {delay:g} s",
            exc_info=failure.error,
        )
        if delay is None:
            times = "" if failures == 1 else f" {failures} times"
            await self._set_aside(delivery, f"event handler {self._handler.name} failed{times}: {failure.text}")
        else:
            await self._delays.publish_until_confirmed(delay, self._queue, _retried(delivery.envelope, failures))

    async def _set_aside(self, delivery: Delivery, reason: str) -> None:
        logger.error("dead-lettered an event from %s: %s", delivery.queue, reason)
        letter = encode_dead_letter(delivery.envelope, delivery.queue, reason, datetime.now(UTC))
        await self._publishing.publish_until_confirmed(self._names.dead_exchange, "", letter)


def _retries(envelope: Envelope) -> int:
    """Return how often an event has been tried again."""
    retries = (envelope.headers or {}).get("retry")
    return retries if type(retries) is int and retries > 0 else 0


def _retried(envelope: Envelope, retries: int) -> Envelope:
    return Envelope(
        envelope.body,
        envelope.content_type,
        message_id=new_message_id(),
        kind=envelope.kind,
        headers={"retry": retries},
    )
