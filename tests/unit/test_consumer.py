"""Tasks on their way through a task process whose broker, settler and recorder are played here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from limetask import ids
from limetask.amqp import Connection, Delivery
from limetask.message import Decision, Envelope, Started, TaskIdentity, TaskMessage, Verdict
from limetask.registry import TaskDeclaration
from limetask.topology import Names
from limetask_worker import consumer as consumer_module
from limetask_worker.claims import Claims
from limetask_worker.consumer import Consumer
from limetask_worker.executor import Executor
from limetask_worker.limits import Limits
from limetask_worker.marks import Mark, Marks
from limetask_worker.settle import Settler
from limetask_worker.solo import SoloRunner
from limetask_worker.work import Outcome, Work

LOST_EPOCH, LIVE_EPOCH = 1, 2


LATE = cast(TaskDeclaration, SimpleNamespace(acks_late=True, is_async=False, time_limit=None, qos="default"))


class Broker:
    """Both connections: what is consumed on the first epoch is lost."""

    connected_at = 0.0
    live_epoch = LIVE_EPOCH

    def __init__(self) -> None:
        self.pulls = 0

    async def consume(self, _subscription: object) -> None:
        return

    async def cancel_consumers(self) -> None:
        return

    async def get(self, _queue: str) -> None:
        self.pulls += 1

    def give_back(self, delivery: Delivery) -> None:
        return

    def holds(self, delivery: Delivery) -> bool:
        return delivery.epoch == LIVE_EPOCH


@dataclass
class Recording:
    """The settler: it notes which starts were taken back."""

    taken_back: list[str] = field(default_factory=list)

    def start_record(self, work: Work) -> Started:
        now = datetime.now(UTC)
        return Started(work.key[0], "consumer.late", "shop", work.key[1], "w", True, now, now)

    def released(self, start: Started) -> asyncio.Future[None]:
        self.taken_back.append(start.task_id)
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        told.set_result(None)
        return told

    def returned(self, _works: object) -> None:
        return


class Recorder:
    """It answers claims when a test has it do so."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()

    async def verdict(self, _start: Started, **_options: bool) -> Verdict:
        return await self.answer

    def grant(self, work: Work) -> None:
        self.answer.set_result(Verdict(*work.key, datetime.now(UTC), Decision.RUN, begun=1))


class Idle:
    """An executor whose bodies do not end, marks without memory, and limits that nothing exceeds."""

    longest_waiting = None
    allow_more = True

    def __init__(self) -> None:
        self.spoilt = asyncio.Event()

    def run(self, _work: Work) -> asyncio.Future[Outcome]:
        return asyncio.get_running_loop().create_future()

    def time_limit_of(self, _declaration: TaskDeclaration) -> None:
        return

    def take_back(self) -> list[Work]:
        return []

    def hold(self, _task_id: str, _attempt: int) -> Any:
        return Mark()


def late_work(epoch: int = LIVE_EPOCH) -> Work:
    identity = TaskIdentity(ids.new_task_id("shop"), "consumer.late", "shop", 1, None)
    delivery = Delivery(1, epoch, "limetask.tasks.default", True, Envelope(b"", None))
    return Work(delivery, TaskMessage(identity, (), {}), LATE)


def lost_work() -> Work:
    """A late task whose message was lost with its connection."""
    return late_work(LOST_EPOCH)


def run(scenario: Callable[[Consumer, Recording, Broker], Awaitable[None]]) -> None:
    async def set_up() -> None:
        broker, recording, idle = Broker(), Recording(), Idle()
        consumer = Consumer(
            connection=cast(Connection, broker),
            names=Names("limetask"),
            signer=cast(Any, None),
            queues=["default"],
            slots=1,
            settler=cast(Settler, recording),
            executor=cast(Executor, idle),
            claims=cast(Claims, Recorder()),
            solo=cast(SoloRunner, None),
            limits=cast(Limits, idle),
            marks=cast(Marks, idle),
        )
        await consumer.start()
        async with asyncio.timeout(10):
            await scenario(consumer, recording, broker)

    asyncio.run(set_up())


async def end_what_runs(consumer: Consumer) -> None:
    while not consumer._running:
        await asyncio.sleep(0)
    consumer._running.clear()
    consumer._changed.set()


def test_late_tasks_that_were_lost_before_they_began_are_given_up_at_once() -> None:
    """Granted, started ahead or still asked for: the recorder hears it, and whoever waits for their end goes on."""

    async def scenario(consumer: Consumer, recording: Recording, _broker: Broker) -> None:
        granted, ready, asked = (lost_work() for _ in range(3))
        for work in (granted, ready):
            consumer._take_in_hand(work)
        consumer._claim(asked)
        consumer._running["other", 1] = lost_work()  # which has the only slot
        consumer._granted.append(granted)
        consumer._ready.append(ready)
        while len(recording.taken_back) < 3:
            await asyncio.sleep(0.01)
        assert set(recording.taken_back) == {work.key[0] for work in (granted, ready, asked)}
        assert not consumer._in_hand

    run(scenario)


def test_who_waits_for_the_end_of_all_tasks_hears_of_those_that_are_given_up() -> None:
    """The last body has ended, and a task behind it turns out to be lost: no other end follows."""

    async def scenario(consumer: Consumer, _recording: Recording, _broker: Broker) -> None:
        work = lost_work()
        consumer._take_in_hand(work)
        consumer._ready.append(work)
        ended = asyncio.ensure_future(consumer.ended())
        await asyncio.sleep(0)
        consumer._fill_slots()
        await ended

    run(scenario)


def test_a_claim_that_is_given_up_leaves_its_slot_to_the_next_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that takes one message a free slot takes another at once, not only some seconds later."""
    monkeypatch.setattr(consumer_module, "_CLAIM_SECONDS", 600.0)

    async def scenario(consumer: Consumer, recording: Recording, broker: Broker) -> None:
        consumer._intake._is_pushed = False
        consumer._claim(lost_work())
        while not recording.taken_back:
            await asyncio.sleep(0.01)
        while not broker.pulls:
            await asyncio.sleep(0.01)

    run(scenario)


def test_a_claim_that_is_answered_as_its_worker_stops_runs_to_its_end() -> None:
    """The answer is here, and nobody has followed it yet: the worker waits for what it is about to begin."""

    async def scenario(consumer: Consumer, recording: Recording, _broker: Broker) -> None:
        work = late_work()
        consumer._claim(work)
        [asking] = consumer._claiming
        await asyncio.sleep(0)
        cast(Recorder, consumer._claims).grant(work)
        await asyncio.sleep(0)
        assert asking.done()
        assert consumer._claiming
        ending = asyncio.ensure_future(end_what_runs(consumer))
        await consumer.stop()
        await consumer.ended()
        assert ending.done()
        assert not recording.taken_back

    run(scenario)


def test_a_worker_that_stops_has_taken_back_what_it_had_claimed() -> None:
    """Else it might close its connections before that is on its way."""

    async def scenario(consumer: Consumer, recording: Recording, _broker: Broker) -> None:
        work = late_work()
        consumer._claim(work)
        await asyncio.sleep(0)
        await consumer.stop()
        await consumer.ended()
        assert recording.taken_back == [work.key[0]]

    run(scenario)
