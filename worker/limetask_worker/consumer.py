"""Takes tasks from their queues and brings each through its life: admitted, started, run, settled."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from functools import partial

from limetask.amqp import Connection, Delivery
from limetask.codec import decode_identity, decode_task, has_flag
from limetask.errors import MessageRefusedError
from limetask.ids import sent_at
from limetask.message import (
    BEGUN_TOO_OFTEN,
    START_REFUSED,
    UNKNOWN_TASK,
    UNREADABLE,
    Decision,
    Envelope,
    TaskIdentity,
    Verdict,
)
from limetask.registry import TaskDeclaration, declared_tasks, find_task
from limetask.signing import Signer
from limetask.topology import Names, QoS
from limetask_worker.claims import Claims
from limetask_worker.delivery_lag import DeliveryLag
from limetask_worker.end_line import EndLines
from limetask_worker.executor import Executor
from limetask_worker.intake import Intake
from limetask_worker.limits import Limits, time_limit_exceeded
from limetask_worker.log_thread import WORK_FIELD
from limetask_worker.marks import Marks
from limetask_worker.pace import Pace
from limetask_worker.settle import Settler
from limetask_worker.similar import similar_name
from limetask_worker.solo import SoloDiedError, SoloNotStartedError, SoloRunner
from limetask_worker.timings import FORMER_HOLDER_SECONDS, SURE_SECONDS
from limetask_worker.work import Outcome, Work

logger = logging.getLogger(__name__)

_START_REFUSED = "the recorder cannot record its start, as its log says, so nobody could tell whether it has run before"
# Of each queue: those that are started ahead, and as many again on their way here. All are unacked.
_PREFETCH_AHEAD = 256
# A claim is decided in this time if there is a recorder; until then it may need a slot at any moment.
_CLAIM_SECONDS = FORMER_HOLDER_SECONDS + 1.0
_LOOK_SECONDS = 0.1
# The window of started tasks is filled up when it has emptied to this share.
_WINDOW_LEVEL = 0.75


class Consumer:
    """Starts as many tasks as there are free slots, the most urgent queue first.

    A task has a slot while its body runs. If bodies are short, more are started ahead of a free slot, as `Pace` says:
    their starts are recorded already when one becomes free. What waits here is not acked, and goes back to its queue on
    `stop`, or when it has waited for long. What was delivered before, or perhaps sent twice, or kept here for too long,
    waits for the recorder's word first, and then comes before all others.

    A task is in hand, and marked so, from before its start can be recorded until its end is confirmed.
    """

    def __init__(
        self,
        connection: Connection,
        names: Names,
        signer: Signer,
        queues: Sequence[QoS],
        slots: int,
        settler: Settler,
        executor: Executor,
        claims: Claims,
        solo: SoloRunner,
        limits: Limits,
        marks: Marks,
    ) -> None:
        self._connection = connection
        self._names = names
        self._signer = signer
        self._settler = settler
        self._executor = executor
        self._claims = claims
        self._solo = solo
        self._limits = limits
        self._marks = marks
        self._slots = slots
        self._pace = Pace(slots)
        self._waiting: dict[QoS, deque[Work]] = {qos: deque() for qos in queues}
        self._in_hand: dict[tuple[str, int], Work] = {}
        self._claiming: dict[asyncio.Task[Verdict], Work] = {}
        self._starting: dict[tuple[str, int], Work] = {}
        self._ready: deque[Work] = deque()
        self._granted: deque[Work] = deque()
        self._running: dict[tuple[str, int], Work] = {}
        self._end_lines = EndLines()
        self._coroutines = 0
        self._start_scheduled = False
        self._is_stopped = False
        self._changed = asyncio.Event()
        self._intake = Intake(
            connection,
            names,
            queues,
            fewest=slots,
            most=slots + _PREFETCH_AHEAD,
            admit=self._admit,
            look_again=self._schedule_start,
            give_back=self._give_back_waiting,
        )

    async def start(self) -> None:
        """Consume, now and after every reconnect."""
        self._look()
        await self._intake.start()

    async def stop(self) -> None:
        """Take nothing more, and give back what has not started."""
        await self._intake.stop()
        self._is_stopped = True
        self._give_back_waiting()
        for asking in self._claiming:
            asking.cancel()

    async def ended(self) -> None:
        """Return when no task runs, or may run because the recorder has said so; of one that stops.

        A claim that was answered as it was given up lets its task run all the same, a moment later.
        """
        while self.unfinished or self._claiming:
            self._changed.clear()
            await self._changed.wait()

    @property
    def unfinished(self) -> int:
        """How many tasks have begun, or are about to."""
        return len(self._running) + len(self._starting) + len(self._ready) + len(self._granted)

    def _admit(self, qos: QoS, delivery: Delivery, lag: DeliveryLag) -> None:
        identity: TaskIdentity | None = None
        try:
            identity = decode_identity(delivery.envelope, self._signer)
            declaration = find_task(identity.task_name)
            if declaration is None:
                self._settler.refused(delivery, identity, _unknown_task(identity.task_name), UNKNOWN_TASK)
            elif lag.is_suspected and lag.is_late(sent_at(identity.task_id)):
                self._accept(qos, delivery, identity, declaration, is_new=False)
            elif declaration.qos != qos and not delivery.redelivered and not has_flag(delivery.envelope, "moved"):
                self._settler.moved(delivery, identity, self._names.task_queue(declaration.qos))
            else:
                self._accept(qos, delivery, identity, declaration, is_new=not delivery.redelivered)
        except MessageRefusedError as exc:
            self._settler.refused(delivery, identity, str(exc), UNREADABLE)
        self._schedule_start()

    def _accept(
        self, qos: QoS, delivery: Delivery, identity: TaskIdentity, declaration: TaskDeclaration, *, is_new: bool
    ) -> None:
        work = Work(delivery, decode_task(identity, delivery.envelope), declaration)
        known = self._in_hand.get(work.key)
        if known is not None:
            self._adopt(known, work)
        elif not is_new or identity.attempt > 1 or _may_be_elsewhere(delivery.envelope):
            self._claim(work)
        else:
            self._waiting[qos].append(work)

    def _adopt(self, known: Work, again: Work) -> None:
        """Take a delivery that comes again, after a lost connection, for the one that it repeats."""
        if known.is_settled:
            self._settler.dropped(again, "it runs here")
        elif self._connection.holds(known.delivery):
            logger.info("a repeated message is settled together with the first", extra={WORK_FIELD: known})
            known.copies.append(again.delivery)
        else:
            known.delivery = again.delivery

    def _take_in_hand(self, work: Work) -> None:
        if self._in_hand.get(work.key) is not work:
            self._in_hand[work.key] = work
            work.mark = self._marks.hold(*work.key)

    def _let_go(self, work: Work) -> None:
        del self._in_hand[work.key]
        work.mark.release()

    def _claim(self, work: Work) -> None:
        self._take_in_hand(work)
        asking = asyncio.get_running_loop().create_task(self._ask(work))
        self._claiming[asking] = work
        asking.add_done_callback(self._on_verdict)
        asyncio.get_running_loop().call_later(_CLAIM_SECONDS, self._schedule_start)
        if self._is_stopped:
            asking.cancel()

    async def _ask(self, work: Work) -> Verdict:
        redelivered = work.delivery.redelivered
        may_run_again = work.declaration.acks_late and redelivered
        return await self._claims.verdict(
            self._settler.start_record(work),
            may_run_again=may_run_again,
            may_begin_elsewhere=not may_run_again and (redelivered or has_flag(work.delivery.envelope, "repeated")),
        )

    def _on_verdict(self, asked: asyncio.Task[Verdict]) -> None:
        work = self._claiming.pop(asked)
        self._changed.set()
        if asked.cancelled():
            self._give_up(work, began_before=work.mark.has_begun)
            self._schedule_start()
            return
        verdict = asked.result()
        match verdict.decision:
            case Decision.RUN:
                work.begun = verdict.begun
                work.granted_at = time.monotonic()
                self._granted.append(work)
                self._schedule_start()
            case Decision.STARTED_ELSEWHERE:
                # It may have been asked twice, and granted the second time: nobody would run it, in nobody's hand.
                self._take_back_start(work)
                # It may be the only message of a task that its worker has lost, or dies with before it has begun.
                self._settler.put_off(work, f"started by {verdict.worker}")
            case Decision.BEGUN_TOO_OFTEN:
                self._let_go(work)
                self._settler.failed(work, _begun_too_often(verdict), BEGUN_TOO_OFTEN)
            case Decision.REFUSED:
                self._let_go(work)
                self._settler.failed(work, _START_REFUSED, START_REFUSED)
            case Decision.UNEXPECTED:
                self._let_go(work)
                self._settler.set_aside(work, _unexpected(verdict))
            case Decision.ENDED:
                self._let_go(work)
                self._settler.dropped(work, verdict.decision.value)

    def _give_up(self, work: Work, *, began_before: bool = False) -> None:
        """Leave a task to others that has not begun here, whatever is recorded of it.

        `began_before` is whether an earlier start of it here has, and was lost with its own process. That one counts,
        so it stays recorded, and marked: what is recorded as started here and not in hand counts as ended.
        """
        self._take_back_start(work, began_before=began_before)
        self._changed.set()
        work.is_settled = True
        for delivery in (work.delivery, *work.copies):
            self._connection.give_back(delivery)

    def _take_back_start(self, work: Work, *, began_before: bool = False) -> None:
        """Tell the recorder that a task has not begun here; until it knows, the task is in hand."""
        del self._in_hand[work.key]
        told = self._settler.released(self._settler.start_record(work))
        if not began_before:
            told.add_done_callback(lambda _: work.mark.release())

    def _schedule_start(self) -> None:
        # Deferred to the end of this turn of the loop: what arrived or ended together starts with one message.
        if not self._start_scheduled:
            self._start_scheduled = True
            asyncio.get_running_loop().call_soon(self._start_waiting)

    def _start_waiting(self) -> None:
        self._start_scheduled = False
        self._fill_slots()
        if not self._limits.allow_more:
            return  # what waits goes back soon
        window = self._slots + self._pace.ahead
        # While there is enough to go on with, starts are collected: one message tells of all of them.
        if self._in_window() < max(self._slots, window * _WINDOW_LEVEL):
            batch = [work for waiting in self._waiting.values() for work in self._take_fresh(waiting, window)]
            if batch:
                self._settler.started(batch, self._on_started, self._doubt)
        if self._in_window() + self._claims_soon_decided() < self._slots and not any(self._waiting.values()):
            self._intake.has_room(is_quick=self._pace.is_quick)

    def _claims_soon_decided(self) -> int:
        # Without a recorder they wait for long, and must keep no slot free.
        return sum(work.age < _CLAIM_SECONDS for work in self._claiming.values()) if self._claiming else 0

    def _in_window(self) -> int:
        return len(self._starting) + len(self._ready) + len(self._granted) + len(self._running)

    def _look(self) -> None:
        """See, ten times a second, to what no event would tell: messages that are lost, or have waited for long."""
        if self._is_stopped and not self.unfinished:
            return
        asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)
        self._give_up_lost()
        if not self._is_stopped:
            self._intake.note_longest_wait(self._longest_wait())

    def _give_up_lost(self) -> None:
        """Say at once of late tasks that have not begun, and whose messages were lost with their connection, so.

        These are delivered to others, which would soon take them for begun here, and run each alone in a process.
        """
        live_epoch = self._connection.live_epoch
        for waiting in (self._granted, self._ready):
            lost = [work for work in waiting if work.declaration.acks_late and work.delivery.epoch != live_epoch]
            for work in lost:
                waiting.remove(work)
                self._give_up(work)
        for asking, work in self._claiming.items():
            if work.declaration.acks_late and work.delivery.epoch != live_epoch:
                asking.cancel()  # which gives it up

    def _longest_wait(self) -> float:
        """Return for how many seconds the oldest message has waited here for a slot."""
        waits = [waiting[0].age for waiting in (self._ready, *self._waiting.values()) if waiting]
        longest_waiting = self._executor.longest_waiting  # asked once: a thread may take it just now
        if longest_waiting is not None:
            waits.append(longest_waiting.age)
        if self._granted:
            waits.append(time.monotonic() - self._granted[0].granted_at)
        return max(waits, default=0.0)

    def _give_back_waiting(self) -> None:
        unstarted = [work for waiting in self._waiting.values() for work in waiting]
        for waiting in self._waiting.values():
            waiting.clear()
        self._tell_returned(unstarted)
        for work in unstarted:
            self._connection.give_back(work.delivery)
        if self._is_stopped:
            return  # what is recorded as started runs yet
        self._give_up_unbegun()

    def _give_up_unbegun(self) -> None:
        """Leave to others what is recorded as started here and has not begun."""
        for work in self._executor.take_back():
            del self._running[work.key]
            self._give_up(work)
        for waiting in (self._granted, self._ready):
            while waiting:
                self._give_up(waiting.popleft())

    def _on_started(self, batch: Sequence[Work]) -> None:
        for work in batch:
            del self._starting[work.key]
        self._ready.extend(batch)
        self._fill_slots()

    def _fill_slots(self) -> None:
        if self._limits.spoilt.is_set():
            # A body that was cut off goes on in its thread: who waited for that would be cut off without having begun.
            self._give_up_unbegun()
            return
        for waiting in (self._granted, self._ready):
            while waiting and self._has_place_for(waiting[0]):
                work = waiting.popleft()
                if not work.declaration.acks_late or self._connection.holds(work.delivery):
                    self._running[work.key] = work
                    self._run(work)
                else:
                    self._give_up(work)  # it is delivered again

    def _has_place_for(self, work: Work) -> bool:
        """Return True if there is a slot for a task, or if it may queue for one where the bodies run.

        There it need not wait for this loop when its slot becomes free. A coroutine begins at once, and so does a task
        with a time limit, whose time runs from here: these need the slot.
        """
        running = len(self._running)
        if running < self._slots:
            return True
        needs_slot = work.declaration.is_async or work.declaration.acks_late or work.declaration.time_limit is not None
        return not needs_slot and not self._coroutines and running < self._slots + self._pace.ahead

    def _take_fresh(self, waiting: deque[Work], window: int) -> list[Work]:
        taken: list[Work] = []
        gone: list[Work] = []
        room = window - self._in_window()
        live_epoch = self._connection.live_epoch
        earliest = time.monotonic() - SURE_SECONDS
        while waiting and len(taken) < room:
            work = waiting.popleft()
            known = self._in_hand.get(work.key)
            if work.delivery.epoch != live_epoch:
                gone.append(work)
            elif known is not None:
                self._adopt(known, work)
            elif work.received_at < earliest:
                # This process stood still, and the broker may have given its messages to others.
                self._claim(work)
            else:
                self._take_in_hand(work)
                self._starting[work.key] = work
                taken.append(work)
        if gone:
            self._tell_returned(gone)  # these are delivered again
        return taken

    def _tell_returned(self, unstarted: Sequence[Work]) -> None:
        # Not of a task that is in hand by another copy of its message: that one may be about to start.
        self._settler.returned([work for work in unstarted if work.key not in self._in_hand])

    def _doubt(self, work: Work) -> None:
        """Ask the recorder whether a task may run: its connection, or the process that ran it, was lost."""
        self._starting.pop(work.key, None)
        self._release(work)
        if _is_suspect(work):
            work.started_at = None  # it would begin once more
        self._claim(work)

    def _run(self, work: Work) -> None:
        work.time_limit = self._limits.time_limit_of(work.declaration)
        ended = self._run_alone(work) if _is_suspect(work) else self._run_here(work)
        ended.add_done_callback(partial(self._on_ended, work))
        if not work.declaration.acks_late:
            self._settler.ack_when_begun(work)

    def _run_here(self, work: Work) -> asyncio.Future[Outcome]:
        self._coroutines += work.declaration.is_async
        ended = self._executor.run(work)
        self._limit_time(work, ended)
        return ended

    def _run_alone(self, work: Work) -> asyncio.Future[Outcome]:
        def begins() -> None:
            work.mark.begin()
            self._limit_time(work, ended)

        ended = asyncio.ensure_future(self._solo.run(work, begins))
        return ended

    def _limit_time(self, work: Work, ended: asyncio.Future[Outcome]) -> None:
        if work.time_limit is not None:
            loop = asyncio.get_running_loop()
            work.cut_off_timer = loop.call_later(work.time_limit, self._cut_off, work, ended, work.time_limit)

    def _cut_off(self, work: Work, ended: asyncio.Future[Outcome], seconds: float) -> None:
        """End a task that exceeds its time limit for everybody else; the body itself only ends with its process."""
        if ended.done() or work.body_seconds is not None:
            return  # this loop is late: the body has ended, and how is on its way here
        outcome = time_limit_exceeded(seconds)
        work.mark.lift_time_limit()
        self._settler.ended(work, outcome, self._let_go)
        self._end_lines.add(work, outcome)
        work.is_cut_off = True
        self._release(work)
        if _is_suspect(work):
            ended.cancel()  # which kills its own process
        else:
            self._limits.process_is_spoilt(f"task {work.message.identity.task_name} exceeded its time limit")

    def _on_ended(self, work: Work, ended: asyncio.Future[Outcome]) -> None:
        ran_alone = _is_suspect(work)
        if not ran_alone:
            self._coroutines -= work.declaration.is_async
        if work.cut_off_timer is not None:
            work.cut_off_timer.cancel()
        if work.is_cut_off or ended.cancelled():
            return
        match ended.exception():
            case SoloDiedError() as died:
                logger.error("%s, running it alone", died, extra={WORK_FIELD: work})
                self._doubt(work)
                return
            case SoloNotStartedError() as not_started:
                logger.error("%s; it goes back to its queue", not_started, extra={WORK_FIELD: work})
                self._release(work)
                self._give_up(work)
                return
        outcome = ended.result()
        if work.body_seconds is not None:
            self._pace.note(work.body_seconds)
        if outcome.refusal is not None:
            self._settler.refused_after_start(work, outcome, outcome.refusal, self._let_go)
        else:
            self._settler.ended(work, outcome, self._let_go)
            if not ran_alone:  # else its own process has logged it
                self._end_lines.add(work, outcome)
        self._release(work)
        self._limits.count_ended_task()

    def _release(self, work: Work) -> None:
        self._running.pop(work.key, None)
        self._changed.set()
        self._schedule_start()


def _is_suspect(work: Work) -> bool:
    """Return True for a late task that was running when its worker was lost: it may be what the worker died of."""
    return work.declaration.acks_late and (work.begun or 1) > 1


def _unknown_task(name: str) -> str:
    similar = similar_name(name, declared_tasks())
    hint = f"did you mean {similar!r}?" if similar else "its banner lists those that it has"
    return f"unknown task: this worker has no task {name!r}; {hint}"


def _begun_too_often(verdict: Verdict) -> str:
    return (
        f"it was started {verdict.begun} times, and each time its worker or its connection was lost before its end, "
        "so it is not run again (LIMETASK_MAX_DELIVERIES)"
    )


def _unexpected(verdict: Verdict) -> str:
    return (
        f"unexpected attempt: {verdict.attempt} is not the next one of this task, as its status says, so it is neither "
        "run nor recorded; only limetask dead retry sends another attempt"
    )


def _may_be_elsewhere(envelope: Envelope) -> bool:
    return has_flag(envelope, "repeated") or has_flag(envelope, "put_off")
