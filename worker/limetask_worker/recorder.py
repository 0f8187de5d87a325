"""The recorder: the only writer of the status store. Drains the results queue into it, in batches.

A batch is written in one transaction, and acked after the commit. Should the recorder die in between, the broker
delivers the batch again, and writing it again changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from itertools import groupby
from typing import TypeVar

from limetask.amqp import Connection, Delivery, Subscription, hidden_password
from limetask.codec import check_headers
from limetask.errors import BrokerError, MessageRefusedError
from limetask.marker import leave_marker_if_possible
from limetask.message import (
    Completion,
    Echo,
    MessageKind,
    Refused,
    Returned,
    Started,
    UnreadableHeaders,
    WorkerLost,
)
from limetask.records import (
    decode_alive,
    decode_claim,
    decode_completion,
    decode_echo,
    decode_handler_gone,
    decode_handlers,
    decode_refused,
    decode_released,
    decode_returned,
    decode_started,
    decode_worker_lost,
    encode_completion,
    encode_echo,
    readable_starts,
)
from limetask.settings import Settings, current_settings
from limetask.topology import Names, completion_bindings
from limetask_worker.acting import Acting
from limetask_worker.background import run_beside
from limetask_worker.control import ChildOptions, Control
from limetask_worker.echoes import Echoes
from limetask_worker.handed_back import HandedBack
from limetask_worker.handler_queues import HandlerQueues
from limetask_worker.losses import Losses
from limetask_worker.patient_store import PatientStore
from limetask_worker.process import run_child, unless_stopped
from limetask_worker.pruning import Pruning
from limetask_worker.rate import Rate
from limetask_worker.signs_of_life import give_signs_of_life
from limetask_worker.store_watch import StoreWatch
from limetask_worker.verdicts import Verdicts

logger = logging.getLogger(__name__)

T = TypeVar("T")
Record = Started | Completion
_Reader = Callable[[Iterable[Delivery]], Awaitable[None]]

_BATCH = 1000
_BATCH_BYTES = 16 * 1024**2  # all of it may become one value of one statement
_PREFETCH = 2 * _BATCH  # one batch being written, the next one here already
# At a higher rate than this, in messages a second, a transaction for each few of them would take most of the time.
_HIGH_RATE = 1000.0
_GATHER_SECONDS = 0.05
_READ_EVERY_SECONDS = 0.025
# A start alone is in no hurry: a task that takes no time has its end in the same transaction.
_LINGER_SECONDS = 0.005
_YOUNG_OBJECTS = 20_000
_WATCH_EVERY_SECONDS = 2.0
_CANCEL_SECONDS = 5.0
# On a stop: the ends that the task processes published last are on their way here.
_QUIET_SECONDS = 0.2
_DRAIN_SECONDS = 5.0


class Recorder:
    """Writes what comes in, as long as `run` runs."""

    def __init__(self, settings: Settings, name: str, consuming: Connection, publishing: Connection) -> None:
        """`name` is that of this process, which no other has had."""
        self._settings = settings
        self._names = Names(settings.namespace)
        self._consuming = consuming
        self._publishing = publishing
        self._pending: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._more_than_starts = asyncio.Event()
        self._heard_in_epoch = 0
        self._batch_begun = 0.0
        self._heard_at = time.monotonic()
        self._rate = Rate()
        self._acting = Acting(publishing, self._names)
        self._echoes = Echoes()
        self._store = PatientStore(settings.resolved_store_url)
        handed_back = HandedBack()
        self._losses = Losses(self._store, publishing, self._names, handed_back, settings.worker_timeout)
        self._verdicts = Verdicts(
            self._store, publishing, self._names, self._losses, handed_back, settings.max_deliveries, self._send_echo
        )
        self._pruning = Pruning(self._store, settings.retention_days)
        self._stores = StoreWatch(self._store, name, hidden_password(settings.resolved_store_url), self._is_active)
        self._handlers = HandlerQueues(self._store, publishing, self._names)
        each, together = self._acting.each, self._acting.together
        self._readers: dict[object, _Reader] = {
            MessageKind.STARTED: partial(together, decode=_records_in, act=self._write, salvage=_records_left_in),
            MessageKind.REFUSED: partial(each, decode=decode_refused, act=self._note_refusal),
            MessageKind.CLAIM: partial(together, decode=_one(decode_claim), act=self._verdicts.decide),
            MessageKind.RELEASED: partial(together, decode=_one(decode_released), act=self._verdicts.release),
            MessageKind.RETURNED: partial(each, decode=decode_returned, act=self._note_return),
            MessageKind.ALIVE: partial(each, decode=decode_alive, act=self._losses.note_life),
            MessageKind.ECHO: partial(each, decode=decode_echo, act=self._note_echo),
            MessageKind.WORKER_LOST: partial(each, decode=decode_worker_lost, act=self._note_death),
            MessageKind.HANDLERS: partial(each, decode=decode_handlers, act=self._handlers.note),
            MessageKind.HANDLER_GONE: partial(each, decode=decode_handler_gone, act=self._handlers.note_gone),
        }

    async def open(self) -> None:
        """Bring the store's schema up to date. Raises ConfigurationError for a store that cannot be used."""
        await self._store.open()
        await self._stores.open()

    async def start(self) -> None:
        """Consume, now and after every reconnect."""
        await self._consuming.consume(Subscription(self._names.results_queue, _PREFETCH, self._on_delivery))

    async def run(self, stop: asyncio.Event) -> None:
        """Record until `stop` is set and nothing more arrives."""
        waking = asyncio.ensure_future(self._wake_on(stop))
        background = run_beside(
            [self._pruning.run_for_ever, self._watch_for_ever, self._echo_for_ever, self._stores.watch_for_ever]
        )
        while not stop.is_set():
            await self._arrived.wait()
            await self._gather()
            await self._record_batch()
        await self._drain()
        waking.cancel()
        for service in background:
            service.cancel()

    def close(self) -> None:
        self._store.close()

    def _is_active(self) -> bool | None:
        """Return whether this is the one recorder that gets the records, None while it is not connected."""
        return self._consuming.epoch == self._heard_in_epoch if self._consuming.is_ready else None

    def _on_delivery(self, delivery: Delivery) -> None:
        self._heard_at = time.monotonic()
        self._pending.append(delivery)
        self._heard_in_epoch = delivery.epoch
        self._arrived.set()
        if delivery.envelope.kind != MessageKind.STARTED:
            self._more_than_starts.set()

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
            await self._record_batch()

    async def _gather(self) -> None:
        """Let arrive what can share a transaction with what is here, unless that keeps somebody waiting for little."""
        if not 0 < len(self._pending) < _BATCH:
            return
        if self._rate.per_second > _HIGH_RATE:
            await _let_messages_come(self._batch_begun + _GATHER_SECONDS)
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LINGER_SECONDS):
                    await self._more_than_starts.wait()

    async def _record_batch(self) -> None:
        self._batch_begun = asyncio.get_running_loop().time()
        deliveries = self._take_batch()
        self._rate.note(len(deliveries))
        if not self._pending:
            self._arrived.clear()
            self._more_than_starts.clear()
        if deliveries:
            await self._record(deliveries)

    def _take_batch(self) -> list[Delivery]:
        batch: list[Delivery] = []
        size = 0
        while self._pending and len(batch) < _BATCH and size < _BATCH_BYTES:
            batch.append(self._pending.popleft())
            size += len(batch[-1].envelope.body)
        return batch

    async def _record(self, deliveries: Sequence[Delivery]) -> None:
        """Act on a run of deliveries in their order, as long as we hold them, and only then ack them.

        What is alike and follows one another is one transaction. When the connection is lost another recorder gets
        them, and with them news that we do not hear: that a worker has died whose claim is among them, say.
        """
        for kind, group in groupby(deliveries, key=_group_of):
            await self._readers.get(kind, self._set_all_aside)(filter(self._consuming.holds, group))
        self._consuming.ack(deliveries[-1], multiple=True)

    async def _set_all_aside(self, group: Iterable[Delivery]) -> None:
        for delivery in group:
            try:
                check_headers(delivery.envelope)
                await self._acting.set_aside(delivery, f"a record of unknown kind {delivery.envelope.kind!r}")
            except MessageRefusedError as exc:
                await self._acting.set_aside(delivery, str(exc))

    async def _write(self, records: Sequence[Record]) -> None:
        await self._store.merge(records)
        await self._losses.note_starts(records)

    async def _note_echo(self, echo: Echo) -> None:
        self._stores.note_echo(echo)
        if self._stores.is_ours(echo):
            self._verdicts.note_echo(echo.sent_at)
            if await self._echoes.was_taken_in_time(echo.sent_at):
                await self._losses.note_echo(echo.sent_at)

    async def _note_return(self, returned: Returned) -> None:
        self._verdicts.hand_back(returned.tasks)

    async def _note_death(self, lost: WorkerLost) -> None:
        await self._losses.note_death(lost)
        self._verdicts.note_death(lost.worker)

    async def _note_refusal(self, refused: Refused) -> None:
        """Make a refused task a FAILURE, with its event, if nothing better is known of it.

        Whoever may send tasks can name any task in a message that is refused.
        """
        end = await self._store.end_of_refused(refused)
        if end is None:
            logger.warning("a message was refused that names task %s: its status stays as it is", refused.end.task_id)
            return
        await self._publishing.publish_until_confirmed(
            self._names.completions_exchange, end.routing_key, encode_completion(end)
        )

    async def _watch_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_EVERY_SECONDS)
            await self._bind_anew()
            if self._seems_deaf():
                await self._consume_anew()
            await self._handlers.tend()

    async def _echo_for_ever(self) -> None:
        await give_signs_of_life(self._publishing, self._settings.worker_timeout, self._publish_echo)

    async def _publish_echo(self) -> None:
        echo = self._stores.echo()
        self._echoes.note_sent(echo.sent_at)
        await self._publishing.publish("", self._names.results_queue, encode_echo(echo))
        self._echoes.note_taken(echo.sent_at)

    def _send_echo(self) -> None:
        sent = self._publishing.publish("", self._names.results_queue, encode_echo(self._stores.echo()))
        sent.add_done_callback(lambda done: done.exception())  # the next one comes within seconds

    def _seems_deaf(self) -> bool:
        """Return True if nothing has come for long, our own echoes neither: we stand by, or the queue has lost us."""
        return not self._pending and time.monotonic() - self._heard_at > self._settings.worker_timeout / 2

    async def _consume_anew(self) -> None:
        """Be another consumer. For one that stands by it is all the same; one that the queue has lost is freed."""
        self._heard_at = time.monotonic()
        try:
            async with asyncio.timeout(_CANCEL_SECONDS):
                await self._consuming.cancel_consumers()
        except (BrokerError, TimeoutError):
            self._consuming.renew("the results queue's consumer could not be cancelled")
        with contextlib.suppress(BrokerError):  # it is renewed with its connection
            await self.start()

    async def _bind_anew(self) -> None:
        # Nobody is told when a binding is taken away.
        with contextlib.suppress(BrokerError):
            await self._publishing.declare(completion_bindings(self._names))


async def _let_messages_come(until: float) -> None:
    """Return at `until`, by the loop's clock, with all that has come in the meantime.

    The loop stands still on purpose: nobody waits for this process now, and to be woken by each message, to read it
    alone, would take half as long again as to read them together.
    """
    while (seconds := until - asyncio.get_running_loop().time()) > 0:
        await asyncio.sleep(0)  # writes what is to be sent, and reads what is there
        time.sleep(min(seconds, _READ_EVERY_SECONDS))  # noqa: ASYNC251
    await asyncio.sleep(0)


def _group_of(delivery: Delivery) -> object:
    """Return under which kind a delivery is read, None if its headers say that it is not to be."""
    envelope = delivery.envelope
    if isinstance(envelope.headers, UnreadableHeaders):
        return None
    return MessageKind.STARTED if envelope.kind == MessageKind.COMPLETION else envelope.kind


def _records_in(delivery: Delivery) -> Sequence[Record]:
    if delivery.envelope.kind == MessageKind.STARTED:
        return decode_started(delivery.envelope.body)
    return [decode_completion(delivery.envelope.body)]


def _records_left_in(delivery: Delivery) -> Sequence[Record]:
    """Return what can be read of a message that was refused: starts of other tasks, perhaps of other applications."""
    return readable_starts(delivery.envelope.body) if delivery.envelope.kind == "started" else ()


def _one(decode: Callable[[bytes], T]) -> Callable[[Delivery], Sequence[T]]:
    return lambda delivery: [decode(delivery.envelope.body)]


async def run_recorder(options: ChildOptions, control: Control, stop: asyncio.Event) -> bool:
    """Record until `stop` is set. Raises ConfigurationError or BrokerRefusedError for what no retry would mend."""
    settings = current_settings()
    consuming = Connection(settings, f"recorder {options.worker}")
    publishing = Connection(settings, f"recorder-publisher {options.worker}")
    recorder = Recorder(settings, options.worker, consuming, publishing)
    if await unless_stopped(_open(recorder, consuming, publishing), stop):
        await leave_marker_if_possible(publishing, Names(settings.namespace))
        _spare_the_garbage_collector()
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


def _spare_the_garbage_collector() -> None:
    """Have it look less often: a batch is thousands of objects, none in a cycle, and all modules are here to stay."""
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)


if __name__ == "__main__":
    run_child(run_recorder)
