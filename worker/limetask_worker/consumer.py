"""Takes tasks from their queues and brings each through its life: admitted, started, run, settled."""

from __future__ import annotations

import asyncio
import difflib
import logging
from collections import deque
from collections.abc import Sequence
from functools import partial

from limetask.amqp import Connection, Delivery
from limetask.codec import decode_identity, decode_task
from limetask.errors import MessageRefusedError
from limetask.message import Decision, TaskIdentity, Verdict
from limetask.registry import TaskDeclaration, declared_tasks, find_task
from limetask.signing import Signer
from limetask.status import Status
from limetask.topology import Names, QoS
from limetask_worker.claims import Claims
from limetask_worker.executor import Executor
from limetask_worker.intake import Intake
from limetask_worker.limits import Limits, time_limit_exceeded
from limetask_worker.logs import DURATION_FIELD, WORK_FIELD
from limetask_worker.settle import REPEATED_SECONDS, Settler
from limetask_worker.solo import SoloDiedError, SoloRunner
from limetask_worker.work import Outcome, Work

logger = logging.getLogger(__name__)

_WARN_RESULT_BYTES = 64 * 1024


class Consumer:
    """Starts as many tasks as there are free slots, the most urgent queue first.

    A task occupies its slot from the moment its start is published until its body has ended. What waits here for a
    slot is not acked, and goes back to its queue on `stop`. What was delivered before, or perhaps sent twice, waits
    for the recorder's word first, and then comes before all others.
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
    ) -> None:
        self._connection = connection
        self._names = names
        self._signer = signer
        self._settler = settler
        self._executor = executor
        self._claims = claims
        self._solo = solo
        self._limits = limits
        self._slots = slots
        self._waiting: dict[QoS, deque[Work]] = {qos: deque() for qos in queues}
        self._claiming: dict[tuple[str, int], Work] = {}
        self._granted: deque[Work] = deque()
        self._running: dict[tuple[str, int], Work] = {}
        self._start_scheduled = False
        self._changed = asyncio.Event()
        self._intake = Intake(connection, names, queues, slots, self._admit, self._schedule_start)

    async def start(self) -> None:
        """Consume, now and after every reconnect."""
        await self._intake.start()

    async def stop(self) -> None:
        """Take nothing more, and give back what has not started."""
        await self._intake.stop()
        self._give_back_waiting()

    async def ended(self) -> None:
        """Return when no task runs, or may run because the recorder has said so or is about to."""
        while self.unfinished:
            self._changed.clear()
            await self._changed.wait()

    @property
    def unfinished(self) -> int:
        """How many tasks have begun, or are recorded as begun here."""
        return len(self._running) + len(self._granted) + len(self._claiming)

    def _admit(self, qos: QoS, delivery: Delivery) -> None:
        identity: TaskIdentity | None = None
        try:
            identity = decode_identity(delivery.envelope, self._signer)
            declaration = find_task(identity.task_name)
            if declaration is None:
                self._settler.refused(delivery, identity, _unknown_task(identity.task_name), "UnknownTaskError")
            elif declaration.qos != qos and not delivery.redelivered and not _has_header(delivery, "moved"):
                self._settler.moved(delivery, identity, self._names.task_queue(declaration.qos))
            else:
                self._accept(qos, delivery, identity, declaration)
        except MessageRefusedError as exc:
            self._settler.refused(delivery, identity, str(exc), type(exc).__name__)
        self._schedule_start()

    def _accept(self, qos: QoS, delivery: Delivery, identity: TaskIdentity, declaration: TaskDeclaration) -> None:
        work = Work(delivery, decode_task(identity, delivery.envelope), declaration)
        known_here = self._running.get(work.key) or self._claiming.get(work.key)
        if known_here is not None:
            self._adopt(known_here, work)
        elif delivery.redelivered or _has_header(delivery, "repeated"):
            self._claim(work)
        else:
            self._waiting[qos].append(work)
            self._schedule_start()

    def _adopt(self, known: Work, again: Work) -> None:
        """Take a delivery that comes again, after a lost connection, for the one that it repeats."""
        if known.is_acked:
            self._settler.dropped(again, "it runs here")
        elif self._connection.holds(known.delivery):
            known.copies.append(again.delivery)
        else:
            known.delivery = again.delivery

    def _claim(self, work: Work) -> None:
        self._claiming[work.key] = work
        asking = asyncio.ensure_future(self._ask(work))
        asking.add_done_callback(partial(self._on_verdict, work))

    async def _ask(self, work: Work) -> Verdict:
        if _has_header(work.delivery, "repeated"):
            await asyncio.sleep(max(0.0, REPEATED_SECONDS - work.age))
        may_run_again = work.declaration.acks_late and work.delivery.redelivered
        return await self._claims.verdict(self._settler.start_record(work), may_run_again=may_run_again)

    def _on_verdict(self, work: Work, asked: asyncio.Future[Verdict]) -> None:
        del self._claiming[work.key]
        verdict = asked.result()
        match verdict.decision:
            case Decision.RUN:
                work.begun = verdict.begun
                self._granted.append(work)
                self._schedule_start()
            case Decision.BEGUN_TOO_OFTEN:
                self._settler.refused(
                    work.delivery, work.message.identity, _begun_too_often(verdict), "BegunTooOftenError"
                )
            case _:
                self._settler.dropped(work, verdict.decision.value)
        self._changed.set()

    def _schedule_start(self) -> None:
        # Deferred to the end of this turn of the loop: what arrived or ended together starts with one message.
        if not self._start_scheduled:
            self._start_scheduled = True
            asyncio.get_running_loop().call_soon(self._start_waiting)

    def _start_waiting(self) -> None:
        self._start_scheduled = False
        for work in self._take(self._granted):
            self._settler.granted(work)
            self._run(work)
        batch = [work for waiting in self._waiting.values() for work in self._take(waiting)]
        if batch:
            self._settler.started(batch, self._run, self._doubt)
        if len(self._running) < self._slots:
            self._intake.has_room()
        elif any(self._waiting.values()):
            self._intake.is_full(self._give_back_waiting)

    def _give_back_waiting(self) -> None:
        for waiting in self._waiting.values():
            while waiting:
                self._connection.give_back(waiting.popleft().delivery)

    def _take(self, waiting: deque[Work]) -> list[Work]:
        taken: list[Work] = []
        while waiting and len(self._running) < self._slots:
            work = waiting.popleft()
            if self._connection.holds(work.delivery) or _is_recorded_here(work):  # else it is delivered again
                taken.append(work)
                self._running[work.key] = work
        return taken

    def _doubt(self, work: Work) -> None:
        """Ask the recorder again whether a task may run: its connection, or the process that ran it, was lost."""
        self._release(work)
        if _is_suspect(work):
            work.started_at = None  # it would begin once more
        self._claim(work)

    def _run(self, work: Work) -> None:
        ended = asyncio.ensure_future(self._solo.run(work)) if _is_suspect(work) else self._executor.run(work)
        seconds = self._limits.time_limit_of(work.declaration)
        if seconds is not None:
            work.time_limit = asyncio.get_running_loop().call_later(seconds, self._cut_off, work, ended, seconds)
        ended.add_done_callback(partial(self._on_ended, work))

    def _cut_off(self, work: Work, ended: asyncio.Future[Outcome], seconds: float) -> None:
        """End a task that exceeds its time limit for everybody else; the body itself only ends with its process."""
        outcome = time_limit_exceeded(seconds)
        _log_end(work, outcome)
        self._settler.ended(work, outcome)
        work.is_cut_off = True
        self._release(work)
        if _is_suspect(work):
            ended.cancel()  # which kills its own process
        else:
            self._limits.process_is_spoilt(f"task {work.message.identity.task_name} exceeded its time limit")

    def _on_ended(self, work: Work, ended: asyncio.Future[Outcome]) -> None:
        if work.time_limit is not None:
            work.time_limit.cancel()
        if work.is_cut_off:
            return
        if isinstance(ended.exception(), SoloDiedError):
            logger.error("%s, running it alone", ended.exception(), extra={WORK_FIELD: work})
            self._doubt(work)
            return
        outcome = ended.result()
        if outcome.refusal is not None:
            self._settler.refused_after_start(work, outcome, outcome.refusal)
        else:
            _log_end(work, outcome)
            self._settler.ended(work, outcome)
        self._release(work)
        self._limits.count_ended_task()

    def _release(self, work: Work) -> None:
        self._running.pop(work.key, None)
        self._changed.set()
        self._schedule_start()


def _is_recorded_here(work: Work) -> bool:
    """Return True for an early task that nobody else may run any more: the recorder gave it to this worker."""
    return work.begun is not None and not work.declaration.acks_late


def _is_suspect(work: Work) -> bool:
    """Return True for a late task that was running when its worker was lost: it may be what the worker died of."""
    return work.declaration.acks_late and (work.begun or 1) > 1


def _unknown_task(name: str) -> str:
    similar = difflib.get_close_matches(name, declared_tasks(), n=1)
    hint = f"did you mean {similar[0]!r}?" if similar else "its banner lists those that it has"
    return f"unknown task: this worker has no task {name!r}; {hint}"


def _begun_too_often(verdict: Verdict) -> str:
    return f"its worker was lost {verdict.begun} times while it ran, so it is not run again (LIMETASK_MAX_DELIVERIES)"


def _has_header(delivery: Delivery, name: str) -> bool:
    return name in (delivery.envelope.headers or {})


def _log_end(work: Work, outcome: Outcome) -> None:
    succeeded = outcome.status is Status.SUCCESS
    level = logging.INFO if succeeded else logging.WARNING
    size = len(outcome.result or b"")
    if size > _WARN_RESULT_BYTES:
        logger.warning(
            "the result takes %d bytes: a result is a summary, keep the data where it belongs",
            size,
            extra={WORK_FIELD: work},
        )
    if logger.isEnabledFor(level):
        error = outcome.error
        text = "succeeded" if succeeded else f"failed: {error.type}: {error.message}" if error else "failed"
        started_at = work.started_at or outcome.finished_at
        duration = (outcome.finished_at - started_at).total_seconds()
        logger.log(level, text, extra={WORK_FIELD: work, DURATION_FIELD: duration})
