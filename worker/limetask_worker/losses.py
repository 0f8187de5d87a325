"""What becomes of tasks whose worker will not tell: it has died, its host has, or what it told is not recorded."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from limetask.amqp import Connection
from limetask.message import END_LOST, WORKER_LOST, Alive, Begun, Completion, Released, Started, WorkerLost
from limetask.records import encode_completion
from limetask.status import ErrorInfo, Status
from limetask.topology import Names
from limetask_worker.handed_back import HandedBack
from limetask_worker.limits import time_limit_error
from limetask_worker.missed_ends import MissedEnds
from limetask_worker.patient_store import PatientStore
from limetask_worker.vital_signs import VitalSigns

logger = logging.getLogger(__name__)

# So many ended workers are remembered, for starts of theirs that arrive after the news.
_REMEMBERED_WORKERS = 1000
# A start this much older than the list of what its worker has in hand, and not in it, is missing there.
_SURELY_SECONDS = 5.0


class Losses:
    """Fails what is lost, and has everything else run elsewhere."""

    def __init__(
        self,
        store: PatientStore,
        publishing: Connection,
        names: Names,
        handed_back: HandedBack,
        worker_timeout: float,
    ) -> None:
        """A worker counts as dead after `worker_timeout` seconds without a sign of life."""
        self._store = store
        self._publishing = publishing
        self._names = names
        self._handed_back = handed_back
        self._worker_timeout = worker_timeout
        self._vital_signs = VitalSigns(worker_timeout)
        self._missed_ends = MissedEnds(self._vital_signs, worker_timeout)
        self._dead: dict[str, WorkerLost] = {}
        self._held: dict[str, frozenset[str]] = {}

    def is_dead(self, worker: str) -> bool:
        """Return True for a worker whose supervisor has told its end: it will never come back."""
        return worker in self._dead

    def is_gone(self, worker: str) -> bool:
        """Return True for a worker that is dead, or has given no sign of life for so long that it counts as dead."""
        return self.is_dead(worker) or self._vital_signs.is_silent(worker)

    def holder_of(self, task_id: str, *, but: str) -> str | None:
        """Return a worker other than `but` that has a task in hand, as its last sign of life said; None if none has."""
        return next(
            (
                worker
                for worker, held in self._held.items()
                if task_id in held and worker != but and not self.is_gone(worker)
            ),
            None,
        )

    async def note_death(self, lost: WorkerLost) -> None:
        """Settle all that a worker process had in hand when it ended."""
        self._dead[lost.worker] = lost
        if len(self._dead) > _REMEMBERED_WORKERS:
            del self._dead[next(iter(self._dead))]
        await self._store.note_ended(lost.worker)  # before we look what it has: another recorder may be granting more
        await self._settle(lost)

    async def note_starts(self, records: Iterable[Started | Completion]) -> None:
        """Settle what has been recorded as started by a dead worker.

        The news of a death comes by another connection than the last starts, and may be faster.
        """
        if self._dead:
            for worker in {record.worker for record in records if isinstance(record, Started)} & self._dead.keys():
                await self._settle(self._dead[worker])

    async def note_life(self, alive: Alive) -> None:
        """Hear of living workers, and fail what they have ended, and what is not recorded all the same for long.

        As when the results queue was not bound, or was purged: nothing may stay STARTED for ever.
        """
        self._vital_signs.hear(alive.workers)
        # A clock that is ahead, or whoever may write records, could say in advance that what starts later has ended.
        seen_at = min(alive.seen_at, datetime.now(UTC))
        for worker, held in alive.workers.items():
            if held is not None:
                self._held[worker] = frozenset(held)
                missing = await self._missing(worker, self._held[worker], seen_at)
                await self._fail_ended(self._missed_ends.note(worker, missing))

    async def note_echo(self, sent_at: float) -> None:
        """Hear what this recorder has sent to itself, and fail the tasks of workers that have fallen silent.

        These are gone, as when their host has died as a whole. `sent_at` is the echo's, by time.monotonic.
        """
        self._vital_signs.hear_echo(sent_at)
        for worker in self._vital_signs.silent(await self._store.workers_running()):
            reason = f"no sign of life from its worker for {self._worker_timeout:g} s"
            await self._settle(WorkerLost(worker, reason, datetime.now(UTC), begun=None))
        self._held = {worker: held for worker, held in self._held.items() if not self.is_gone(worker)}

    async def _missing(self, worker: str, held: frozenset[str], seen_at: datetime) -> list[Started]:
        surely = seen_at - timedelta(seconds=_SURELY_SECONDS)
        running = await self._store.running_under(worker)
        return [one for one in running if one.task_id not in held and one.started_at < surely]

    async def _fail_ended(self, lost: Iterable[Started]) -> None:
        for started in lost:
            text = "it has ended, and the record of how is lost: was the results queue unbound, or purged?"
            await self._fail(started, ErrorInfo(END_LOST, text), datetime.now(UTC))

    async def _settle(self, lost: WorkerLost) -> None:
        """Fail what had begun in a process that ended, and let the rest run elsewhere.

        A late task that had begun is left as it is: its message is delivered again, and it begins once more.
        """
        self._missed_ends.forget(lost.worker)
        running = await self._store.running_under(lost.worker)
        begun = _begun_of(lost, running)
        unbegun = [one for one in running if _key_of(one) not in begun]
        releasing = [Released(one.task_id, one.attempt, one.worker, one.started_at) for one in unbegun]
        self._handed_back.note(await self._store.release(releasing))
        for started in running:
            error = _error_of(started, begun.get(_key_of(started)), lost)
            if error is not None:
                await self._fail(started, error, lost.lost_at)

    async def _fail(self, started: Started, error: ErrorInfo, ended_at: datetime) -> None:
        """Publish a task's failure, which comes back by the results queue, and is recorded like any other end."""
        logger.error("task %s (%s) is lost: %s", started.task_id, started.task_name, error.message)
        completion = _presumed_end(started, error, ended_at)
        await self._publishing.publish_until_confirmed(
            self._names.completions_exchange, completion.routing_key, encode_completion(completion)
        )


def _key_of(task: Started | Begun) -> tuple[str, int]:
    return task.task_id, task.attempt


def _begun_of(lost: WorkerLost, running: Iterable[Started]) -> Mapping[tuple[str, int], Begun]:
    begun = lost.begun
    if begun is None:  # all of it, for all that is known
        begun = [Begun(started.task_id, started.attempt) for started in running]
    return {_key_of(one): one for one in begun}


def _error_of(started: Started, begun: Begun | None, lost: WorkerLost) -> ErrorInfo | None:
    """Return why a task has failed with its worker, None if it has not."""
    if begun is None:
        return None
    if begun.exceeded is not None:
        return time_limit_error(begun.exceeded)
    return None if started.acks_late else ErrorInfo(WORKER_LOST, lost.reason)


def _presumed_end(started: Started, error: ErrorInfo, ended_at: datetime) -> Completion:
    # Should this be told twice, both events have the same id.
    event_id = uuid.uuid5(uuid.UUID(started.task_id), f"{started.attempt} {error.type} with {started.worker}")
    return Completion(
        id=str(event_id),
        task_id=started.task_id,
        task_name=started.task_name,
        app=started.app,
        status=Status.FAILURE,
        result=None,
        error=error,
        attempt=started.attempt,
        worker=started.worker,
        sent_at=started.sent_at,
        started_at=started.started_at,
        finished_at=ended_at,
    )
