"""Many tasks on their way at a time: the window, and what becomes of each task when something breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from limetask import (
    BrokerUnreachableError,
    ConnectionLostError,
    PartlySentError,
    SendOutcomeUnknownError,
    Settings,
    TaskCall,
    UnroutableError,
)
from limetask.bulk import WINDOW, Bulk, BulkSender
from limetask.client import STATUS_READER
from limetask.message import Envelope
from limetask.sending import Preparer

PREPARER = Preparer(Settings(), "limetask.reply.abc", STATUS_READER)


class Broker:
    """A connection whose answers the test gives, and what was published on it."""

    def __init__(self) -> None:
        self.published: list[Envelope] = []
        self.unanswered: list[asyncio.Future[None]] = []
        self.ready_error: Exception | None = None
        self.connections = 0

    async def ready(self, timeout: float) -> None:
        assert timeout >= 0
        self.connections += 1
        if self.ready_error is not None:
            raise self.ready_error

    def publish(
        self, exchange: str, routing_key: str, envelope: Envelope, *, mandatory: bool = True
    ) -> asyncio.Future[None]:
        assert (exchange, routing_key, mandatory) == ("limetask.tasks", "limetask.tasks.default", True)
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.published.append(envelope)
        self.unanswered.append(answer)
        return answer

    def confirm(self, count: int) -> None:
        for answer in self._take(count):
            answer.set_result(None)

    def refuse(self, count: int, error: Exception) -> None:
        for answer in self._take(count):
            answer.set_exception(error)

    def _take(self, count: int) -> list[asyncio.Future[None]]:
        taken, self.unanswered = self.unanswered[:count], self.unanswered[count:]
        return taken


def bulk_of(count: int) -> Bulk:
    return Bulk([PREPARER.task(TaskCall("a.task", "acme", (number,))) for number in range(count)])


async def turn() -> None:
    """Let all callbacks run that are due."""
    for _ in range(5):
        await asyncio.sleep(0)


def run(
    bulk: Bulk, play: Callable[[Broker, asyncio.Task[None]], Coroutine[Any, Any, None]], send_timeout: float = 10.0
) -> Broker:
    """Send a bulk while `play` answers for the broker; `play` gets the sending as a task."""

    async def main() -> Broker:
        broker = Broker()
        sending = asyncio.create_task(BulkSender(Settings(send_timeout=send_timeout), lambda: broker).send(bulk))
        await turn()
        await play(broker, sending)
        async with asyncio.timeout(10):
            await sending
        return broker

    return asyncio.run(main())


def task_ids(envelopes: list[Envelope]) -> list[str]:
    return [(envelope.headers or {})["task_id"] for envelope in envelopes]


def is_repeated(envelope: Envelope) -> bool:
    return "repeated" in (envelope.headers or {})


def test_all_are_published_in_order() -> None:
    """Each task is published once, in the order of the calls, and their statuses are in that order, too."""
    bulk = bulk_of(2 * WINDOW + 10)

    async def play(broker: Broker, sending: asyncio.Task[None]) -> None:
        while not sending.done():
            broker.confirm(WINDOW)
            await turn()

    broker = run(bulk, play)
    assert task_ids(broker.published) == [status.id for status in bulk.statuses()]
    assert not any(map(is_repeated, broker.published))


def test_the_window_stays_full() -> None:
    """No more await their confirms than the window holds, and as soon as some are confirmed as many are published."""
    bulk = bulk_of(WINDOW + 100)

    async def play(broker: Broker, _sending: asyncio.Task[None]) -> None:
        assert len(broker.unanswered) == WINDOW
        broker.confirm(30)
        await turn()
        assert len(broker.published) == WINDOW + 30
        assert len(broker.unanswered) == WINDOW
        broker.confirm(WINDOW)
        await turn()
        broker.confirm(WINDOW)

    assert run(bulk, play).connections == 1


def test_large_tasks_are_on_their_way_one_after_another() -> None:
    """Of tasks near the largest message only some are published at a time, and all in the end."""
    large = Preparer(Settings(max_arguments_bytes=16 * 1024 * 1024), "limetask.reply.abc", STATUS_READER)
    bulk = Bulk([large.task(TaskCall("a.task", "acme", (b"x" * 9_000_000,))) for _ in range(5)])

    async def play(broker: Broker, sending: asyncio.Task[None]) -> None:
        while not sending.done():
            assert len(broker.unanswered) <= 2
            broker.confirm(1)
            await turn()

    assert len(run(bulk, play).published) == 5


def test_what_was_lost_is_sent_again_before_the_rest() -> None:
    """After a lost connection the tasks without a confirm go first, flagged; what is new to the broker is not."""
    bulk = bulk_of(WINDOW + 5)

    async def play(broker: Broker, _sending: asyncio.Task[None]) -> None:
        broker.refuse(WINDOW, ConnectionLostError("cut"))
        await turn()
        broker.confirm(WINDOW)
        await turn()
        broker.confirm(5)

    broker = run(bulk, play)
    assert broker.connections == 2
    wanted = [status.id for status in bulk.statuses()]
    assert task_ids(broker.published) == wanted[:WINDOW] + wanted
    assert [is_repeated(envelope) for envelope in broker.published] == [False] * WINDOW + [True] * WINDOW + [False] * 5
    assert len({envelope.message_id for envelope in broker.published}) == len(broker.published)


def test_what_is_confirmed_is_not_sent_again() -> None:
    """Only the tasks without a confirm are sent again after a lost connection."""
    bulk = bulk_of(10)

    async def play(broker: Broker, _sending: asyncio.Task[None]) -> None:
        broker.confirm(7)
        broker.refuse(3, ConnectionLostError("cut"))
        await turn()
        broker.confirm(3)

    broker = run(bulk, play)
    assert task_ids(broker.published[10:]) == [status.id for status in bulk.statuses()[7:]]


def test_a_refusal_ends_it() -> None:
    """After a task that the broker refuses nothing more is published; what is on its way is still awaited."""
    bulk = bulk_of(WINDOW + 5)

    async def play(broker: Broker, sending: asyncio.Task[None]) -> None:
        broker.refuse(1, UnroutableError("no queue"))
        await turn()
        assert not sending.done()
        broker.confirm(WINDOW)

    broker = run(bulk, play)
    assert len(broker.published) == WINDOW
    with pytest.raises(PartlySentError, match=f"^{WINDOW - 1} of {WINDOW + 5} tasks were sent: no queue$") as caught:
        bulk.statuses()
    assert [status.id for status in caught.value.unconfirmed] == [bulk.tasks[0].status.id] + [
        task.status.id for task in bulk.tasks[WINDOW:]
    ]


def test_an_absent_broker_is_told() -> None:
    """Without a connection no task is sent, and the reason is the connection's."""
    bulk = bulk_of(3)

    async def main() -> None:
        broker = Broker()
        broker.ready_error = BrokerUnreachableError("no RabbitMQ")
        await BulkSender(Settings(), lambda: broker).send(bulk)

    asyncio.run(main())
    with pytest.raises(PartlySentError, match=r"^0 of 3 tasks were sent: no RabbitMQ$"):
        bulk.statuses()


def test_a_broker_that_does_not_come_back_leaves_the_outcome_unknown() -> None:
    """What was published before the connection was lost may be there; the error says so."""
    bulk = bulk_of(3)

    async def play(broker: Broker, _sending: asyncio.Task[None]) -> None:
        broker.confirm(1)
        broker.ready_error = BrokerUnreachableError("no RabbitMQ")
        broker.refuse(2, ConnectionLostError("cut"))

    run(bulk, play)
    assert [type(error) for error in bulk.errors] == [type(None), SendOutcomeUnknownError, SendOutcomeUnknownError]
    with pytest.raises(PartlySentError, match=r"^1 of 3 tasks were sent: no RabbitMQ; task .* may have been queued"):
        bulk.statuses()


def test_it_goes_on_while_there_is_progress() -> None:
    """The deadline counts from the last confirm: many tasks may take longer than it, altogether."""
    bulk = bulk_of(6)

    async def play(broker: Broker, sending: asyncio.Task[None]) -> None:
        for _ in range(6):
            await asyncio.sleep(0.25)
            broker.confirm(1)
            await turn()

    run(bulk, play, send_timeout=1.2)
    assert len(bulk.statuses()) == 6


def test_without_progress_it_gives_up() -> None:
    """A broker that confirms nothing any more leaves those unknown that were published, and the rest untried."""
    bulk = bulk_of(WINDOW + 2)

    async def play(broker: Broker, _sending: asyncio.Task[None]) -> None:
        broker.confirm(1)

    broker = run(bulk, play, send_timeout=1.0)
    assert len(broker.published) == WINDOW + 1
    assert all(answer.cancelled() for answer in broker.unanswered)
    assert {str(error) for error in bulk.errors[WINDOW + 1 :]} == {"not tried"}
    with pytest.raises(PartlySentError, match=r"did not confirm in time \(is it blocked\?\)"):
        bulk.statuses()


def test_a_connection_that_is_lost_again_and_again_is_given_up() -> None:
    """Without a single confirm it ends, however often the connection comes back."""
    bulk = bulk_of(2)

    async def play(broker: Broker, sending: asyncio.Task[None]) -> None:
        while not sending.done():
            broker.refuse(2, ConnectionLostError("cut"))
            await asyncio.sleep(0.01)

    broker = run(bulk, play, send_timeout=0.2)
    assert broker.connections > 1
    with pytest.raises(PartlySentError, match=r"^0 of 2 tasks were sent: .*; task .* may have been queued or not$"):
        bulk.statuses()


def test_a_cancelled_sending_publishes_nothing_more() -> None:
    """Whoever cancels it gets the cancellation, and no more is published."""

    async def main() -> None:
        broker = Broker()
        sending = asyncio.create_task(BulkSender(Settings(), lambda: broker).send(bulk_of(WINDOW + 1)))
        await turn()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await turn()
        assert len(broker.published) == WINDOW
        assert all(answer.cancelled() for answer in broker.unanswered)

    asyncio.run(main())
