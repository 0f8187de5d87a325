"""Takes events from one handler's queue and brings each to its end: handled, tried again later, or set aside."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime

from limetask import ids
from limetask.amqp import Connection, Delivery
from limetask.codec import encode_dead_letter, new_message_id, text_property
from limetask.delays import Delays
from limetask.errors import MessageRefusedError, TooLargeForBrokerError, UnknownApplicationError
from limetask.events import Event, decode_event
from limetask.handlers import HandlerDeclaration
from limetask.message import Envelope
from limetask.redeliveries import Arrived, DeliveryMemory, retries_of
from limetask.topology import Names
from limetask_worker.handler_executor import HandlerExecutor, HandlerFailure
from limetask_worker.handler_intake import HandlerIntake
from limetask_worker.limits import Limits, time_limit_error
from limetask_worker.marks import Marks

logger = logging.getLogger(__name__)

# What a handler is marked as while it runs: it is its time limit that the supervisor is to see.
_MARKED_AS = ids.new_task_id("limetask.event_handler")


class HandlerConsumer:
    """Runs one handler for the events in its queue, `concurrency` at a time, in their order.

    An event is acked when the handler has returned, or when its retry or its dead letter is confirmed. Should this
    process die before that, the broker delivers it again. If only the connection is lost it is delivered again too, and
    not begun again here. A handler that exceeds its time limit has failed; what still runs of it spoils this process.
    """

    def __init__(
        self,
        handler: HandlerDeclaration,
        queue: str,
        executor: HandlerExecutor,
        consuming: Connection,
        publishing: Connection,
        names: Names,
        limits: Limits,
        marks: Marks,
    ) -> None:
        self._handler = handler
        self._queue = queue
        self._executor = executor
        self._consuming = consuming
        self._publishing = publishing
        self._names = names
        self._limits = limits
        self._marks = marks
        self._delays = Delays(publishing, names)
        self._memory: DeliveryMemory[Delivery] = DeliveryMemory(
            consuming, HandlerIntake.most_unacked(handler.concurrency)
        )
        self._intake = HandlerIntake(
            consuming, queue, handler.concurrency, limits.longest_hold, self._memory, self._begin_waiting
        )
        self._running: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Take events, now and after every reconnect."""
        await self._intake.start()

    async def stop(self) -> None:
        """Take nothing more, give back what has not begun, and return when what has is over."""
        await self._intake.stop()
        if self._running:
            await asyncio.wait(self._running)
        self._executor.close()

    def _begin_waiting(self) -> None:
        while len(self._running) < self._handler.concurrency and not self._limits.spoilt.is_set():
            arrived = self._intake.take()
            if arrived is None:
                return
            self._memory.take_in_hand(arrived)
            running = asyncio.get_running_loop().create_task(self._bring_to_its_end(arrived))
            self._running.add(running)
            running.add_done_callback(self._on_end)

    def _on_end(self, running: asyncio.Task[None]) -> None:
        self._running.discard(running)
        running.result()
        self._begin_waiting()

    async def _bring_to_its_end(self, arrived: Arrived[Delivery]) -> None:
        begun_at = time.monotonic()
        try:
            await self._see_to(arrived)
        except TooLargeForBrokerError as exc:  # since its event came, the broker's limit has been lowered
            logger.error("the broker makes the dead letter, without the reason: %s", exc)
            self._memory.forget(arrived)
            for delivery in arrived.deliveries:
                self._consuming.reject(delivery)
        else:
            self._memory.let_go(arrived)
        self._intake.note_end(time.monotonic() - begun_at)

    async def _see_to(self, arrived: Arrived[Delivery]) -> None:
        try:
            event = decode_event(arrived.envelope)
        except MessageRefusedError as exc:
            await self._set_aside(arrived.envelope, str(exc))
            return
        if self._handler.wants(event.routing_key, event.task_name):
            await self._handle(arrived, event)

    async def _handle(self, arrived: Arrived[Delivery], event: Event) -> None:
        failure = await self._outcome(arrived, event)
        if failure is None:
            logger.debug("%s has handled %s", self._handler.name, event.id)
            return
        failures = retries_of(arrived.envelope) + 1
        delay = self._handler.retry.delay_before(failures) if _may_pass(failure) else None
        failure.context.run(
            logger.error,
            "event handler %s failed for event %s (%s, app=%s)%s%s",
            *(self._handler.name, event.id, event.routing_key, event.app),
            "" if failure.error is not None else f": {failure.text}",
            "" if delay is None else f"; it is handled again in {delay:g} s",
            exc_info=failure.error,
        )
        if delay is None:
            times = "" if failures == 1 else f" {failures} times"
            reason = f"event handler {self._handler.name} failed{times}: {failure.text}"
            await self._set_aside(arrived.envelope, reason)
        else:
            await self._delays.publish_until_confirmed(delay, self._queue, _retried(arrived.envelope, failures))

    async def _outcome(self, arrived: Arrived[Delivery], event: Event) -> HandlerFailure | None:
        """Run the handler, and return why it failed, None if it did not."""
        limit = self._limits.longest_hold - arrived.age
        if self._handler.time_limit is not None:
            limit = min(limit, self._handler.time_limit)
        mark = self._marks.hold(_MARKED_AS, 1)
        mark.begin(limit)
        ended = self._executor.run(event)
        await asyncio.wait([ended], timeout=limit)
        mark.release()
        if ended.done():
            return ended.result()
        self._limits.process_is_spoilt(f"event handler {self._handler.name} exceeded its time limit")
        error = time_limit_error(limit)
        return HandlerFailure(f"{error.type}: {error.message}")

    async def _set_aside(self, envelope: Envelope, reason: str) -> None:
        logger.error("dead-lettered an event from %s: %s", self._queue, reason)
        letter = encode_dead_letter(envelope, self._queue, reason, datetime.now(UTC))
        await self._publishing.publish_if_it_fits(self._names.dead_exchange, "", letter)


def _may_pass(failure: HandlerFailure) -> bool:
    return not isinstance(failure.error, UnknownApplicationError)


def _retried(envelope: Envelope, retries: int) -> Envelope:
    return Envelope(
        envelope.body,
        text_property(envelope.content_type),
        message_id=new_message_id(),
        kind=text_property(envelope.kind),
        headers={"retry": retries},
    )
