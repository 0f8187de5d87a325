"""Publishes what happened to a task and settles its delivery: always confirmed first, acked then."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from functools import partial

from limetask import ids
from limetask.amqp import Connection, Delivery
from limetask.codec import count_in, encode_dead_headers, encode_dead_letter, encode_task, has_flag
from limetask.delays import Delays
from limetask.errors import TooLargeForBrokerError
from limetask.message import Completion, Envelope, Refused, Released, Returned, Started, TaskIdentity
from limetask.records import encode_completion, encode_refused, encode_released, encode_returned, encode_started
from limetask.signing import Signer
from limetask.status import ErrorInfo
from limetask.topology import Names
from limetask_worker.ends import Ends
from limetask_worker.log_thread import WORK_FIELD
from limetask_worker.outbox import Outbox
from limetask_worker.refusals import failure_of
from limetask_worker.timings import SURE_SECONDS
from limetask_worker.work import Outcome, Work

logger = logging.getLogger(__name__)

# Early acks go out together: after this time, or when there are so many.
_ACK_SECONDS = 0.02
_ACKS_AT_A_TIME = 32
# A task whose start another worker has recorded is looked at again after 1 s, 2 s, 4 s and so on.
_LONGEST_PUT_OFF_SECONDS = 64


class Settler:
    """Tells the broker of starts and ends, and acks.

    Publishes on one connection and acks on another: an alarm blocks what publishes and must not stop acks.
    Everything is kept and published again until the broker confirms it.

    An early delivery is acked once its body has begun, so that the broker delivers it again if its process dies before
    that. Should the ack be lost, the recorder's word keeps the body from beginning twice.
    """

    def __init__(
        self, consuming: Connection, publishing: Connection, names: Names, signer: Signer, worker: str, outbox: Outbox
    ) -> None:
        self._delays = Delays(publishing, names)
        self._consuming = consuming
        self._publishing = publishing
        self._names = names
        self._signer = signer
        self._worker = worker
        self._unsettled: set[asyncio.Future[None]] = set()
        self._ends = Ends(publishing, names.completions_exchange, outbox, self._unsettled, self._start)
        self._beginning: list[Work] = []
        self._ended_unacked = 0
        self._ack_timer: asyncio.TimerHandle

    def started(
        self, batch: Sequence[Work], proceed: Callable[[Sequence[Work]], None], doubt: Callable[[Work], None]
    ) -> None:
        """Record that these tasks start: one message for all. When it is confirmed, they `proceed` together.

        `doubt` gets those whose record was not confirmed or took long, or whose connection was lost meanwhile: they
        may be elsewhere too, and the record may have been lost.
        """
        envelope = encode_started([self.start_record(work) for work in batch])
        confirmed = self._publishing.publish("", self._names.results_queue, envelope)
        confirmed.add_done_callback(partial(self._on_start_recorded, batch, proceed, doubt))
        self._track(confirmed)

    def start_record(self, work: Work) -> Started:
        """Return the record of a task's start; asked for again, the same."""
        identity = work.message.identity
        if work.started_at is None:
            work.started_at = datetime.now(UTC)
        return Started(
            task_id=identity.task_id,
            task_name=identity.task_name,
            app=identity.app,
            attempt=identity.attempt,
            worker=self._worker,
            acks_late=work.declaration.acks_late,
            sent_at=work.sent_at,
            started_at=work.started_at,
        )

    def ack_when_begun(self, work: Work) -> None:
        """Ack an early delivery soon after its body has begun."""
        if not self._beginning:
            self._ack_timer = asyncio.get_running_loop().call_later(_ACK_SECONDS, self._ack_begun)
        self._beginning.append(work)

    def _note_unacked_end(self) -> None:
        self._ended_unacked += 1
        if self._ended_unacked >= _ACKS_AT_A_TIME:
            self._ack_begun()

    def _ack_begun(self) -> None:
        self._ack_timer.cancel()
        beginning, self._beginning = self._beginning, []
        self._ended_unacked = 0
        for work in beginning:
            if work.is_settled:
                continue
            if work.has_ended or work.mark.has_begun:
                self._ack(work)
            else:
                self.ack_when_begun(work)

    def ended(self, work: Work, outcome: Outcome, on_confirmed: Callable[[Work], None]) -> None:
        """Publish a task's end, and call back when it is confirmed; a late delivery is acked then."""
        work.has_ended = True
        acks_late = work.declaration.acks_late
        if not acks_late and not work.is_settled:
            self._note_unacked_end()
        completion = self._completion(work, outcome)
        reply_to = work.message.identity.reply_to
        self._ends.publish(
            work,
            completion,
            encode_completion(completion, outcome.result),
            partial(self._ack_late, on_confirmed) if acks_late else on_confirmed,
            copy_to=reply_to if reply_to and self._names.is_reply_key(reply_to) else None,
        )

    def refused(self, delivery: Delivery, identity: TaskIdentity | None, reason: str, error_type: str) -> None:
        """Set a message aside that must not run: dead letter, its task told to the recorder if it is known, then ack.

        The recorder decides whether the task has failed by that: anybody may have named it.
        """
        logger.error("dead-lettered a message from %s: %s", delivery.queue, reason)
        self._start(self._dead_letter(delivery, identity, ErrorInfo(error_type, reason)))

    def failed(self, work: Work, reason: str, error_type: str) -> None:
        """Set a task aside that the recorder will not have run again: dead letter, FAILURE, then ack."""
        logger.error("dead-lettered: %s", reason, extra={WORK_FIELD: work})
        self._start(self._dead_letter_failed(work, ErrorInfo(error_type, reason)))

    def refused_after_start(
        self, work: Work, outcome: Outcome, reason: str, on_confirmed: Callable[[Work], None]
    ) -> None:
        """Set a task aside that turned out not to be runnable: dead letter first, then like `ended`."""
        logger.error("dead-lettered: %s", reason, extra={WORK_FIELD: work})
        self._start(self._dead_letter_started(work, outcome, reason, on_confirmed))

    def moved(self, delivery: Delivery, identity: TaskIdentity, queue: str) -> None:
        """Put a task into the queue that its declaration asks for."""
        logger.info("moved task %s (%s) to %s", identity.task_id, identity.task_name, queue)
        repeated = has_flag(delivery.envelope, "repeated")
        envelope = encode_task(identity, delivery.envelope.body, self._signer, moved=True, repeated=repeated)
        self._start(self._move(delivery, envelope, queue))

    def set_aside(self, work: Work, reason: str) -> None:
        """Set a message aside of which nothing is to be recorded: dead letter, then ack."""
        for delivery in (work.delivery, *work.copies):
            self.refused(delivery, None, reason, "")
        work.is_settled = True

    def dropped(self, work: Work, reason: str) -> None:
        """Ack a message whose task has been run, or is being run, by another delivery of it."""
        logger.info("dropped a repeated message: %s", reason, extra={WORK_FIELD: work})
        self._ack(work)

    def put_off(self, work: Work, reason: str) -> None:
        """Have a message delivered again later: what becomes of its task is not known yet."""
        times = count_in(work.delivery.envelope, "put_off")
        seconds = min(2 ** min(times, 32), _LONGEST_PUT_OFF_SECONDS)
        logger.info("looked at again in %d s: %s", seconds, reason, extra={WORK_FIELD: work})
        self._start(self._put_off(work, times + 1, seconds))

    def released(self, start: Started) -> asyncio.Future[None]:
        """Tell the recorder that a task, whose start here it may have recorded, or may yet record, has not begun."""
        envelope = encode_released(Released(start.task_id, start.attempt, self._worker, start.started_at))
        return self._start(self._publishing.publish_until_confirmed("", self._names.results_queue, envelope))

    def returned(self, works: Sequence[Work]) -> None:
        """Tell the recorder that these tasks, whose messages go back to their queue, have not been started here.

        Whoever gets them next need not wait then. It is no loss if that is not told.
        """
        if works:
            envelope = encode_returned(Returned([work.key for work in works]))
            self._publishing.publish("", self._names.results_queue, envelope).add_done_callback(_note_untold)

    async def settled(self) -> None:
        """Return when everything is confirmed and acked."""
        while self._unsettled:
            await asyncio.wait(self._unsettled)
        if self._beginning:
            self._ack_begun()

    def _on_start_recorded(
        self,
        batch: Sequence[Work],
        proceed: Callable[[Sequence[Work]], None],
        doubt: Callable[[Work], None],
        confirmed: asyncio.Future[None],
    ) -> None:
        error = confirmed.exception()
        if len(batch) > 1 and isinstance(error, TooLargeForBrokerError):
            middle = len(batch) // 2
            self.started(batch[:middle], proceed, doubt)
            self.started(batch[middle:], proceed, doubt)
            return
        sure: list[Work] = []
        live_epoch = self._consuming.live_epoch
        earliest = time.monotonic() - SURE_SECONDS
        for work in batch:
            is_in_time = work.declaration.acks_late or work.received_at > earliest
            if error is None and is_in_time and work.delivery.epoch == live_epoch:
                sure.append(work)
            else:
                doubt(work)
        proceed(sure)

    async def _dead_letter(self, delivery: Delivery, identity: TaskIdentity | None, error: ErrorInfo) -> None:
        is_told = await self._publish_dead_letter(delivery, error.message)
        if identity is not None:
            await self._tell_refusal(delivery, identity, error)
        if is_told:
            self._consuming.ack(delivery)
        else:
            self._consuming.reject(delivery)

    async def _dead_letter_failed(self, work: Work, error: ErrorInfo) -> None:
        is_told = await self._publish_dead_letter(work.delivery, error.message)
        failure = failure_of(work.message.identity, error, self._worker)
        await self._publishing.publish_until_confirmed(
            self._names.completions_exchange, failure.routing_key, encode_completion(failure)
        )
        if is_told:
            self._ack(work)
        else:
            self._reject(work)

    async def _dead_letter_started(
        self, work: Work, outcome: Outcome, reason: str, on_confirmed: Callable[[Work], None]
    ) -> None:
        if not await self._publish_dead_letter(work.delivery, reason):
            await self._publish_dead_headers(work.delivery, reason)  # it may be acked already
        self.ended(work, outcome, on_confirmed)

    async def _put_off(self, work: Work, times: int, seconds: int) -> None:
        identity = work.message.identity
        envelope = encode_task(identity, work.delivery.envelope.body, self._signer, put_off=times)
        queue = self._names.task_queue(work.declaration.qos)
        try:
            await self._delays.publish_until_confirmed(seconds, queue, envelope)
        except TooLargeForBrokerError as exc:
            logger.warning("waits in its worker's hand instead: %s", exc, extra={WORK_FIELD: work})
            # Not tracked: a worker that stops does not wait for it, and the message goes back all the same.
            asyncio.get_running_loop().call_later(_LONGEST_PUT_OFF_SECONDS, self._give_back, work)
        else:
            self._ack(work)

    async def _move(self, delivery: Delivery, envelope: Envelope, queue: str) -> None:
        try:
            await self._publishing.publish_if_it_fits(self._names.tasks_exchange, queue, envelope)
        except TooLargeForBrokerError as exc:
            logger.warning("not moved, so it runs from the queue that it is in: %s", exc)
            self._consuming.give_back(delivery)  # it comes again as redelivered, and such are not moved
        else:
            self._consuming.ack(delivery)

    async def _publish_dead_letter(self, delivery: Delivery, reason: str) -> bool:
        """Return True when a dead letter is confirmed, False if it is larger than the broker takes.

        Then the broker itself can make one of the delivery, with all but the reason, once that is rejected.
        """
        letter = encode_dead_letter(delivery.envelope, delivery.queue, reason, datetime.now(UTC))
        try:
            await self._publishing.publish_if_it_fits(self._names.dead_exchange, "", letter)
        except TooLargeForBrokerError as exc:
            logger.error("the broker makes the dead letter, without the reason: %s", exc)
            return False
        return True

    async def _publish_dead_headers(self, delivery: Delivery, reason: str) -> None:
        letter = encode_dead_headers(delivery.envelope, delivery.queue, reason, datetime.now(UTC))
        await self._publishing.publish_until_confirmed(self._names.dead_exchange, "", letter)

    async def _tell_refusal(self, delivery: Delivery, identity: TaskIdentity, error: ErrorInfo) -> None:
        """Tell the recorder that a task was refused, who makes it a FAILURE unless it knows better of the task."""
        refusal = encode_refused(Refused(failure_of(identity, error, self._worker), delivery.redelivered))
        await self._publishing.publish_until_confirmed("", self._names.results_queue, refusal)

    def _completion(self, work: Work, outcome: Outcome) -> Completion:
        identity = work.message.identity
        return Completion(
            id=ids.new_event_id(),
            task_id=identity.task_id,
            task_name=identity.task_name,
            app=identity.app,
            status=outcome.status,
            result=None,  # it is JSON already, and put into the event as it is
            error=outcome.error,
            attempt=identity.attempt,
            worker=self._worker,
            sent_at=work.sent_at,
            started_at=work.started_at,
            finished_at=outcome.finished_at,
        )

    def _ack_late(self, on_confirmed: Callable[[Work], None], work: Work) -> None:
        self._ack(work)
        on_confirmed(work)

    def _ack(self, work: Work) -> None:
        work.is_settled = True
        for delivery in (work.delivery, *work.copies):
            self._consuming.ack(delivery)

    def _reject(self, work: Work) -> None:
        """Have the broker make a dead letter of a task's message; further copies of it are dropped."""
        work.is_settled = True
        self._consuming.reject(work.delivery)
        for copy in work.copies:
            self._consuming.ack(copy)

    def _give_back(self, work: Work) -> None:
        work.is_settled = True
        for delivery in (work.delivery, *work.copies):
            self._consuming.give_back(delivery)

    def _start(self, settling: Coroutine[None, None, None]) -> asyncio.Future[None]:
        settled = asyncio.get_running_loop().create_task(settling)
        self._track(settled)
        return settled

    def _track(self, future: asyncio.Future[None]) -> None:
        self._unsettled.add(future)
        future.add_done_callback(self._unsettled.discard)


def _note_untold(told: asyncio.Future[None]) -> None:
    if not told.cancelled() and told.exception() is not None:
        logger.debug("the recorder was not told what went back: %s", told.exception())
