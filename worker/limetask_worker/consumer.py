"""Takes tasks from their queues and brings each through its life: admitted, started, run, settled."""

from __future__ import annotations

import asyncio
import difflib
import logging
from collections import deque
from collections.abc import Sequence
from functools import partial

from limetask.amqp import Connection, Delivery, Subscription
from limetask.codec import decode_identity, decode_task
from limetask.errors import MessageRefusedError
from limetask.message import TaskIdentity
from limetask.registry import TaskDeclaration, declared_tasks, find_task
from limetask.status import Status
from limetask.topology import Names, QoS
from limetask_worker.executor import Executor
from limetask_worker.logs import DURATION_FIELD, WORK_FIELD
from limetask_worker.settle import Settler
from limetask_worker.work import Outcome, Work

logger = logging.getLogger(__name__)

_WARN_RESULT_BYTES = 64 * 1024


class Consumer:
    """Starts as many tasks as there are free slots, the most urgent queue first.

    A task occupies its slot from the moment its start is published until its body has ended. What waits here for a
    slot is not acked, and goes back to its queue on `stop`.
    """

    def __init__(
        self,
        connection: Connection,
        names: Names,
        queues: Sequence[QoS],
        slots: int,
        settler: Settler,
        executor: Executor,
    ) -> None:
        self._connection = connection
        self._names = names
        self._settler = settler
        self._executor = executor
        self._slots = slots
        self._free_slots = slots
        self._waiting: dict[QoS, deque[Work]] = {qos: deque() for qos in queues}
        self._start_scheduled = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def start(self) -> None:
        """Consume, now and after every reconnect."""
        for qos in self._waiting:
            subscription = Subscription(self._names.task_queue(qos), self._slots, partial(self._admit, qos))
            await self._connection.consume(subscription)

    async def stop(self) -> None:
        """Take nothing more, and give back what has not started."""
        await self._connection.cancel_consumers()
        for waiting in self._waiting.values():
            while waiting:
                self._connection.give_back(waiting.popleft().delivery)

    async def ended(self) -> None:
        """Return when no task occupies a slot."""
        await self._idle.wait()

    @property
    def running(self) -> int:
        """How many tasks occupy a slot."""
        return self._slots - self._free_slots

    def _admit(self, qos: QoS, delivery: Delivery) -> None:
        identity: TaskIdentity | None = None
        try:
            identity = decode_identity(delivery.envelope)
            declaration = find_task(identity.task_name)
            if declaration is None:
                self._settler.refused(delivery, identity, _unknown_task(identity.task_name), "UnknownTaskError")
            elif declaration.qos != qos and not _was_moved(delivery):
                self._settler.moved(delivery, identity, self._names.task_queue(declaration.qos))
            else:
                self._accept(qos, delivery, identity, declaration)
        except MessageRefusedError as exc:
            self._settler.refused(delivery, identity, str(exc), type(exc).__name__)

    def _accept(self, qos: QoS, delivery: Delivery, identity: TaskIdentity, declaration: TaskDeclaration) -> None:
        self._waiting[qos].append(Work(delivery, decode_task(identity, delivery.envelope), declaration))
        self._schedule_start()

    def _schedule_start(self) -> None:
        # Deferred to the end of this turn of the loop: what arrived or ended together starts with one message.
        if not self._start_scheduled:
            self._start_scheduled = True
            asyncio.get_running_loop().call_soon(self._start_waiting)

    def _start_waiting(self) -> None:
        self._start_scheduled = False
        batch = [work for waiting in self._waiting.values() for work in self._take(waiting)]
        if batch:
            self._settler.started(batch, self._run, self._release)

    def _take(self, waiting: deque[Work]) -> list[Work]:
        taken: list[Work] = []
        while waiting and self._free_slots:
            work = waiting.popleft()
            if self._connection.holds(work.delivery):  # else the broker delivers it again
                taken.append(work)
                self._free_slots -= 1
                self._idle.clear()
        return taken

    def _run(self, work: Work) -> None:
        self._executor.run(work).add_done_callback(partial(self._on_ended, work))

    def _on_ended(self, work: Work, ended: asyncio.Future[Outcome]) -> None:
        outcome = ended.result()
        if outcome.refusal is not None:
            self._settler.refused_after_start(work, outcome, outcome.refusal)
        else:
            _log_end(work, outcome)
            self._settler.ended(work, outcome)
        self._release(work)

    def _release(self, _work: Work) -> None:
        self._free_slots += 1
        if self._free_slots == self._slots:
            self._idle.set()
        self._schedule_start()


def _unknown_task(name: str) -> str:
    similar = difflib.get_close_matches(name, declared_tasks(), n=1)
    hint = f"did you mean {similar[0]!r}?" if similar else "its banner lists those that it has"
    return f"unknown task: this worker has no task {name!r}; {hint}"


def _was_moved(delivery: Delivery) -> bool:
    return "moved" in (delivery.envelope.headers or {})


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
