"""The recorder: the only writer of the status store. Drains the results queue into it, in batches.

A batch is written in one transaction, and acked after the commit. Should the recorder die in between, the broker
delivers the batch again, and writing it again changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TypeVar

from limetask.amqp import Connection, Delivery, Subscription
from limetask.codec import encode_dead_letter
from limetask.errors import BrokerError, MessageRefusedError, StoreError
from limetask.message import (
    END_LOST,
    WORKER_LOST,
    Alive,
    Begun,
    Claim,
    Completion,
    Decision,
    Released,
    Started,
    Verdict,
    WorkerLost,
)
from limetask.records import (
    decode_alive,
    decode_claim,
    decode_completion,
    decode_released,
    decode_started,
    decode_worker_lost,
    encode_completion,
    encode_verdict,
)
from limetask.settings import Settings, current_settings
from limetask.status import ErrorInfo, Status
from limetask.topology import Names, Topology, results_bindings
from limetask_worker.control import ChildOptions, Control
from limetask_worker.limits import time_limit_error
from limetask_worker.process import run_child, unless_stopped
from limetask_worker.schema import upgrade
from limetask_worker.store_writer import RecordRejectedError, StoreWriter
from limetask_worker.vital_signs import VitalSigns

logger = logging.getLogger(__name__)

T = TypeVar("T")
Record = Started | Completion

_BATCH = 1000
_PREFETCH = 2 * _BATCH  # one batch being written, the next one here already
# A task that takes no time has its start and its end in one transaction.
_LINGER_SECONDS = 0.005
_RETRY_SECONDS = 1.0
_WATCH_EVERY_SECONDS = 2.0
# A message comes again as soon as its worker is gone, the news of what had begun there a little later.
_NEWS_SECONDS = 1.0
# So many ended workers are remembered, for starts of theirs that arrive after the news.
_REMEMBERED_WORKERS = 1000
# A start this much older than the list of what its worker has in hand, and not in it, has ended.
_SURELY_SECONDS = 5.0
_PRUNE_EVERY_SECONDS = 600.0
_PRUNE_ROWS = 1000
_PRUNE_PAUSE_SECONDS = 0.2
# On a stop: the ends that the task processes published last are on their way here.
_QUIET_SECONDS = 0.2
_DRAIN_SECONDS = 5.0


class Recorder:
    """Writes what comes in, as long as `run` runs."""

    def __init__(self, settings: Settings, consuming: Connection, publishing: Connection) -> None:
        self._settings = settings
        self._names = Names(settings.namespace)
        self._consuming = consuming
        self._publishing = publishing
        self._pending: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._store_thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._vital_signs = VitalSigns(settings.worker_timeout)
        self._lost: dict[str, WorkerLost] = {}
        self._deferred: dict[tuple[str, int, str], tuple[Claim, str]] = {}
        self._deciding: set[asyncio.Task[None]] = set()
        self._writer: StoreWriter | None = None

    async def open(self) -> None:
        """Bring the store's schema up to date. Raises ConfigurationError for a store that cannot be used."""
        url = self._settings.resolved_store_url
        await self._in_store(lambda: upgrade(url))
        self._writer = StoreWriter(url)

    async def start(self) -> None:
        """Consume, now and after every reconnect."""
        await self._consuming.consume(Subscription(self._names.results_queue, _PREFETCH, self._on_delivery))

    async def run(self, stop: asyncio.Event) -> None:
        """Record until `stop` is set and nothing more arrives."""
        waking = asyncio.ensure_future(self._wake_on(stop))
        background = [asyncio.ensure_future(self._prune_for_ever()), asyncio.ensure_future(self._watch_for_ever())]
        while not stop.is_set():
            await self._arrived.wait()
            if len(self._pending) < _BATCH:
                await asyncio.sleep(_LINGER_SECONDS)
            await self._record_pending()
        await self._drain()
        waking.cancel()
        for service in background:
            service.cancel()

    def close(self) -> None:
        self._store_thread.shutdown(wait=True)
        if self._writer is not None:
            self._writer.close()

    def _on_delivery(self, delivery: Delivery) -> None:
        self._pending.append(delivery)
        self._arrived.set()

    async def _wake_on(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._arrived.set()

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                await self._record_until_quiet()
        except TimeoutError:
            logger.info("stopping with records left in the results queue: they are kept there")

    async def _record_until_quiet(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_QUIET_SECONDS):
                    await self._arrived.wait()
            except TimeoutError:
                return
            await self._record_pending()

    async def _record_pending(self) -> None:
        self._arrived.clear()
        while self._pending:
            deliveries = [self._pending.popleft() for _ in range(min(_BATCH, len(self._pending)))]
            await self._record(deliveries)

    async def _record(self, deliveries: Sequence[Delivery]) -> None:
        """Act on a run of deliveries in their order, and only then ack them.

        Starts and ends that follow one another are one transaction.
        """
        for kind, group in groupby(deliveries, key=_group_of):
            match kind:
                case "records":
                    await self._write(list(group))
                case "claim":
                    await self._each(group, decode_claim, self._decide)
                case "released":
                    await self._each(group, decode_released, self._release)
                case "alive":
                    await self._each(group, decode_alive, self._note_alive)
                case "worker-lost":
                    await self._each(group, decode_worker_lost, self._note_loss)
                case _:
                    for delivery in group:
                        await self._set_aside(delivery, f"a record of unknown kind {delivery.envelope.kind!r}")
        self._consuming.ack(deliveries[-1], multiple=True)

    async def _each(
        self, group: Iterable[Delivery], decode: Callable[[bytes], T], act: Callable[[T], Awaitable[None]]
    ) -> None:
        for delivery in group:
            try:
                await act(decode(delivery.envelope.body))
            except (MessageRefusedError, RecordRejectedError) as exc:
                await self._set_aside(delivery, str(exc))

    async def _write(self, deliveries: Sequence[Delivery]) -> None:
        records: list[tuple[Record, Delivery]] = []
        for delivery in deliveries:
            try:
                records += [(record, delivery) for record in _decode(delivery)]
            except MessageRefusedError as exc:
                await self._set_aside(delivery, str(exc))
        try:
            await self._merge([record for record, _ in records])
        except RecordRejectedError:
            await self._write_one_by_one(records)
        await self._settle_starts_of_the_dead(record for record, _ in records)

    async def _write_one_by_one(self, records: Iterable[tuple[Record, Delivery]]) -> None:
        for record, delivery in records:
            try:
                await self._merge([record])
            except RecordRejectedError as exc:
                await self._set_aside(delivery, str(exc))

    async def _decide(self, claim: Claim) -> None:
        """Decide whether a worker may run a task, and tell it. It asks again if the answer is lost.

        What another worker has started waits for a moment: the news may be on its way that this one is dead.
        """
        key = claim.start.task_id, claim.start.attempt, claim.reply_to
        self._deferred.pop(key, None)
        verdict = await self._claim(claim, take_over=False)
        owner = verdict.worker
        if verdict.decision is not Decision.STARTED_ELSEWHERE:
            self._answer(claim, verdict)
        elif owner is None or owner == claim.start.worker or owner in self._lost:
            await self._decide_at_last(claim)
        else:
            self._deferred[key] = claim, owner
            asyncio.get_running_loop().call_later(_NEWS_SECONDS, self._decide_deferred, key, claim)

    def _decide_deferred(self, key: tuple[str, int, str], claim: Claim) -> None:
        waiting, _ = self._deferred.get(key, (None, None))
        if waiting is claim:
            del self._deferred[key]
            deciding = asyncio.ensure_future(self._decide_at_last(claim))
            self._deciding.add(deciding)
            deciding.add_done_callback(self._deciding.discard)

    async def _decide_at_last(self, claim: Claim) -> None:
        self._answer(claim, await self._claim(claim, take_over=True))

    async def _claim(self, claim: Claim, *, take_over: bool) -> Verdict:
        most = self._settings.max_deliveries
        verdict = await self._in_store(lambda: self._open_writer().claim(claim, most, take_over=take_over))
        await self._settle_starts_of_the_dead([claim.start])
        return verdict

    async def _release(self, released: Released) -> None:
        await self._in_store(lambda: self._open_writer().release([released]))

    def _answer(self, claim: Claim, verdict: Verdict) -> None:
        if self._names.is_reply_key(claim.reply_to):
            sent = self._publishing.publish(self._names.events_exchange, claim.reply_to, encode_verdict(verdict))
            sent.add_done_callback(_note_failure)

    async def _merge(self, records: Sequence[Record]) -> None:
        if records:
            await self._in_store(lambda: self._open_writer().merge(records))

    async def _note_alive(self, alive: Alive) -> None:
        self._vital_signs.hear(alive.workers)
        for worker, held in alive.workers.items():
            if held is not None:
                await self._fail_ended(worker, frozenset(held), alive.seen_at - timedelta(seconds=_SURELY_SECONDS))

    async def _fail_ended(self, worker: str, held: frozenset[str], started_before: datetime) -> None:
        """Fail what a living worker has ended, and told, and what is not recorded all the same.

        As when the results queue was not bound for a while: nothing may stay STARTED for ever.
        """
        for started in await self._running_under(worker):
            if started.task_id not in held and started.started_at < started_before:
                text = "it has ended, and the record of how is lost: was the results queue unbound, or purged?"
                await self._presume(started, ErrorInfo(END_LOST, text), datetime.now(UTC))

    async def _watch_for_ever(self) -> None:
        """Fail the tasks of workers that have fallen silent, as when their host has died."""
        while True:
            await asyncio.sleep(_WATCH_EVERY_SECONDS)
            if not self._consuming.is_ready:
                self._vital_signs.listen_anew()
            await self._bind_anew()
            if not self._consuming.is_ready or self._pending:
                continue  # signs of life may be on their way
            running = await self._in_store(lambda: self._open_writer().workers_running())
            for worker in self._vital_signs.silent(running):
                reason = f"no sign of life from its worker for {self._settings.worker_timeout:g} s"
                await self._settle_tasks_of(WorkerLost(worker, reason, datetime.now(UTC), begun=None))

    async def _bind_anew(self) -> None:
        # Nobody is told when a binding is taken away.
        with contextlib.suppress(BrokerError):
            await self._publishing.declare(Topology((), (), results_bindings(self._names)))

    async def _note_loss(self, lost: WorkerLost) -> None:
        self._lost[lost.worker] = lost  # its supervisor says so, so it will never come back
        if len(self._lost) > _REMEMBERED_WORKERS:
            del self._lost[next(iter(self._lost))]
        await self._settle_tasks_of(lost)
        for key, (claim, owner) in list(self._deferred.items()):
            if owner == lost.worker:
                self._decide_deferred(key, claim)

    async def _settle_starts_of_the_dead(self, records: Iterable[Record]) -> None:
        # The news of a death comes by another connection than the last starts, and may be faster.
        for worker in {record.worker for record in records if isinstance(record, Started)} & self._lost.keys():
            await self._settle_tasks_of(self._lost[worker])

    async def _settle_tasks_of(self, lost: WorkerLost) -> None:
        """Fail what had begun in a process that ended, and let the rest run elsewhere.

        A late task that had begun is left as it is: its message is delivered again, and it begins once more.
        """
        running = await self._running_under(lost.worker)
        begun = _begun_of(lost, running)
        unbegun = [one for one in running if (one.task_id, one.attempt) not in begun]
        released = [Released(one.task_id, one.attempt, lost.worker) for one in unbegun]
        await self._in_store(lambda: self._open_writer().release(released))
        for started in running:
            error = _error_of(started, begun.get((started.task_id, started.attempt)), lost)
            if error is not None:
                await self._presume(started, error, lost.lost_at)

    async def _running_under(self, worker: str) -> list[Started]:
        return await self._in_store(lambda: self._open_writer().running_under(worker))

    async def _presume(self, started: Started, error: ErrorInfo, ended_at: datetime) -> None:
        """Publish the failure of a task that its worker will not tell of any more.

        The event comes back through the results queue and is recorded like any other end.
        """
        logger.error("task %s (%s) is lost: %s", started.task_id, started.task_name, error.message)
        completion = _presumed_end(started, error, ended_at)
        await self._publishing.publish_until_confirmed(
            self._names.events_exchange, completion.routing_key, encode_completion(completion)
        )

    async def _set_aside(self, delivery: Delivery, reason: str) -> None:
        logger.error("dead-lettered a message from %s: %s", delivery.queue, reason)
        letter = encode_dead_letter(delivery.envelope, delivery.queue, reason, datetime.now(UTC))
        await self._publishing.publish_until_confirmed(self._names.dead_exchange, "", letter)

    async def _prune_for_ever(self) -> None:
        while True:
            await self._prune()
            await asyncio.sleep(_PRUNE_EVERY_SECONDS)

    async def _prune(self) -> None:
        """Delete expired rows in small batches, with pauses in which the recording goes on."""
        before = datetime.now(UTC) - timedelta(days=self._settings.retention_days)
        while await self._in_store(lambda: self._open_writer().prune(before, _PRUNE_ROWS)) == _PRUNE_ROWS:
            await asyncio.sleep(_PRUNE_PAUSE_SECONDS)

    async def _in_store(self, work: Callable[[], T]) -> T:
        """Do something in the store's thread, again and again while the store cannot be reached."""
        complained = False
        while True:
            try:
                return await asyncio.get_running_loop().run_in_executor(self._store_thread, work)
            except RecordRejectedError:
                raise
            except StoreError as exc:
                if not complained:
                    logger.error("the store cannot be used, records wait in the results queue: %s", exc)
                complained = True
                await asyncio.sleep(_RETRY_SECONDS)

    def _open_writer(self) -> StoreWriter:
        if self._writer is None:
            raise RuntimeError("Recorder.open has not been called")
        return self._writer


def _group_of(delivery: Delivery) -> str | None:
    kind = delivery.envelope.kind
    return "records" if kind in ("started", "completion") else kind


def _decode(delivery: Delivery) -> Sequence[Record]:
    if delivery.envelope.kind == "started":
        return decode_started(delivery.envelope.body)
    return [decode_completion(delivery.envelope.body)]


def _note_failure(sent: asyncio.Future[None]) -> None:
    if sent.exception() is not None:
        logger.debug("an answer did not arrive: %s", sent.exception())


def _begun_of(lost: WorkerLost, running: Iterable[Started]) -> Mapping[tuple[str, int], Begun]:
    begun = lost.begun
    if begun is None:  # all of it, for all that is known
        begun = [Begun(started.task_id, started.attempt) for started in running]
    return {(one.task_id, one.attempt): one for one in begun}


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


async def run_recorder(options: ChildOptions, control: Control, stop: asyncio.Event) -> bool:
    """Record until `stop` is set. Raises ConfigurationError or BrokerRefusedError for what no retry would mend."""
    settings = current_settings()
    consuming = Connection(settings, f"recorder {options.worker}")
    publishing = Connection(settings, f"recorder-publisher {options.worker}")
    recorder = Recorder(settings, consuming, publishing)
    if await unless_stopped(_open(recorder, consuming, publishing), stop):
        control.send_ready({})
        await recorder.run(stop)
    await consuming.close()
    await publishing.close()
    recorder.close()
    return True


async def _open(recorder: Recorder, consuming: Connection, publishing: Connection) -> None:
    await recorder.open()
    await publishing.ready_at_last()
    await consuming.ready_at_last()
    await recorder.start()


if __name__ == "__main__":
    run_child(run_recorder)
