"""Delays that a real broker holds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace

import pytest

from limetask import ConnectionLostError, Settings
from limetask.amqp import Connection, Delivery, Subscription
from limetask.dead_letters.headers import death_of, message_of
from limetask.delays import MAX_DELAY_SECONDS, Delays
from limetask.message import Envelope
from limetask.topology import DELAY_LEVELS, Names, Topology, delay_topology
from tests.broker import channel_to, queue_length, take_all
from tests.proxy import Proxy, proxy_to

GENEROUS_SECONDS = 20.0
# The broker's clock has milliseconds, and each level rounds once.
CLOCK_SECONDS = 0.05


class Counted(Connection):
    """A connection that notes how many levels were declared, and whether two declarations overlapped."""

    def __init__(self, settings: Settings, purpose: str) -> None:
        super().__init__(settings, purpose)
        self.declared: list[int] = []
        self.overlapped = False
        self._is_declaring = False

    async def declare(self, wanted: Topology) -> None:
        """Declare, and count it if it is for delays."""
        levels = [queue for queue in wanted.queues if ".delay." in queue.name]
        if not levels:
            await super().declare(wanted)
            return
        self.overlapped |= self._is_declaring
        self._is_declaring = True
        try:
            await super().declare(wanted)
            self.declared.append(len(levels))
        finally:
            self._is_declaring = False


@pytest.fixture
def names(settings: Settings) -> Iterator[Names]:
    """The names of this test's namespace, whose levels of delays are deleted afterwards."""
    names = Names(settings.namespace)
    yield names
    everything = delay_topology(names, DELAY_LEVELS)
    with channel_to(settings.broker_url) as channel:
        for queue in everything.queues:
            channel.queue_delete(queue.name)
        for exchange in everything.exchanges:
            channel.exchange_delete(exchange.name)


def with_delays(settings: Settings, use: Callable[[Counted, Delays], Awaitable[None]]) -> None:
    """Run `use` with an open connection and its delays, and close it."""

    async def main() -> None:
        connection = Counted(settings, "test")
        try:
            await connection.ready(10)
            await use(connection, Delays(connection, Names(settings.namespace)))
        finally:
            await connection.close()

    asyncio.run(asyncio.wait_for(main(), 90))


def message(text: str = "hello") -> Envelope:
    return Envelope(text.encode(), "text/plain", message_id=text)


class Arrivals:
    """Consumes a queue and notes when each message came."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._came: asyncio.Queue[tuple[float, Delivery]] = asyncio.Queue()

    async def of(self, queue: str) -> Arrivals:
        """Begin to consume."""
        await self._connection.consume(Subscription(queue, 100, self._on_delivery))
        return self

    async def next(self, after: float = 0.0) -> tuple[float, Envelope]:
        """Return when the next message came (monotonic seconds), and the message; fails if none comes in time."""
        async with asyncio.timeout(after + GENEROUS_SECONDS):
            moment, delivery = await self._came.get()
        self._connection.ack(delivery)
        return moment, delivery.envelope

    def _on_delivery(self, delivery: Delivery) -> None:
        self._came.put_nowait((time.monotonic(), delivery))


@pytest.mark.parametrize(("seconds", "levels"), [(1, 1), (2, 2), (3, 2), (2.4, 2)])
def test_a_message_comes_when_its_delay_is_over(settings: Settings, names: Names, seconds: float, levels: int) -> None:
    """It comes not before its time and soon after it, as it was sent; only the levels that it needs are declared."""
    sent = Envelope(
        b"\x00body\xff",
        "application/msgpack",
        "id-1",
        "task",
        "some.reply",
        {"task": "a.b", "attempt": 2, "big": 2**40},
    )

    async def use(connection: Counted, delays: Delays) -> None:
        arrivals = await Arrivals(connection).of(names.task_queue("default"))
        await delays.declare(seconds)
        began = time.monotonic()
        await delays.publish_until_confirmed(seconds, names.task_queue("default"), sent)
        moment, came = await arrivals.next(seconds)
        assert moment - began >= seconds - CLOCK_SECONDS
        headers = {name: value for name, value in (came.headers or {}).items() if not name.startswith("x-")}
        assert replace(came, headers=headers) == sent
        assert connection.declared == [levels]

    with_delays(settings, use)


def test_a_short_delay_is_not_held_up_by_a_long_one(settings: Settings, names: Names) -> None:
    """Messages come in the order of their times, not in the order in which they were published."""

    async def use(connection: Counted, delays: Delays) -> None:
        arrivals = await Arrivals(connection).of(names.task_queue("asap"))
        for seconds in (60, 4, 1):
            await delays.publish_until_confirmed(seconds, names.task_queue("asap"), message(str(seconds)))
        assert [(await arrivals.next(4))[1].body for _ in range(2)] == [b"1", b"4"]
        assert connection.declared == [6]

    with_delays(settings, use)


def test_a_message_may_be_delayed_again_and_again(settings: Settings, names: Names) -> None:
    """What the broker has noted of the first delay is left out: with it, it would drop the second in silence."""

    async def use(connection: Counted, delays: Delays) -> None:
        queue = names.task_queue("default")
        arrivals = await Arrivals(connection).of(queue)
        came = replace(message(), headers={"attempt": 1})
        for _ in range(3):
            await delays.publish_until_confirmed(1, queue, came)
            _, came = await arrivals.next(1)
            [death] = (came.headers or {})["x-death"]
            assert (death["queue"], death["count"]) == (names.delay(0), 1)
            assert (came.headers or {})["attempt"] == 1

    with_delays(settings, use)


def test_the_longest_delay_is_held_by_the_highest_level(settings: Settings, names: Names) -> None:
    """The broker takes a message for 194 days, and goes on with others."""

    async def use(connection: Counted, delays: Delays) -> None:
        queue = names.task_queue("default")
        arrivals = await Arrivals(connection).of(queue)
        await delays.publish_until_confirmed(MAX_DELAY_SECONDS, queue, message("long"))
        await delays.publish_until_confirmed(1, queue, message("short"))
        assert (await arrivals.next(1))[1].body == b"short"
        assert await connection.queue_counts(names.delay(23)) == (1, 0)

    with_delays(settings, use)


def test_a_message_whose_queue_is_gone_becomes_a_dead_letter(settings: Settings, names: Names) -> None:
    """A queue that is deleted while a message waits, and one that is not bound, lose nothing."""

    async def use(connection: Counted, delays: Delays) -> None:
        arrivals = await Arrivals(connection).of(names.dead_queue)
        deleted = names.task_queue("background")
        await delays.publish_until_confirmed(2, deleted, message("deleted"))
        with channel_to(settings.broker_url) as channel:
            channel.queue_delete(deleted)
        letter = (await arrivals.next(2))[1]
        death = death_of(letter, message_of(letter))
        assert (letter.body, death.reason.split(":")[0], death.count) == (b"deleted", "unroutable", 1)
        await delays.publish_until_confirmed(1, f"{settings.namespace}.unbound", message("unbound"))
        assert (await arrivals.next(1))[1].body == b"unbound"

    with_delays(settings, use)


def test_a_level_that_was_deleted_is_declared_anew(settings: Settings, names: Names) -> None:
    """A queue or an exchange that somebody has deleted between two publishes exists again for the second."""

    async def use(connection: Counted, delays: Delays) -> None:
        queue = names.task_queue("default")
        arrivals = await Arrivals(connection).of(queue)
        await delays.publish_until_confirmed(2, queue, message("before"))
        assert (await arrivals.next(2))[1].body == b"before"
        with channel_to(settings.broker_url) as channel:
            channel.queue_delete(names.delay(1))
        await delays.publish_until_confirmed(2, queue, message("queue deleted"))
        assert (await arrivals.next(2))[1].body == b"queue deleted"
        assert connection.declared == [2, 2]
        with channel_to(settings.broker_url) as channel:
            channel.exchange_delete(names.delay(1))
        await delays.publish_until_confirmed(2, queue, message("exchange deleted"))
        assert (await arrivals.next(2))[1].body == b"exchange deleted"
        assert connection.declared == [2, 2, 2]

    with_delays(settings, use)


def test_levels_are_declared_once_in_each_epoch(settings: Settings, names: Names) -> None:
    """They are remembered until the connection is rebuilt; then even a lower level that was deleted exists again."""

    def use_with(proxy: Proxy) -> Callable[[Counted, Delays], Awaitable[None]]:
        async def use(connection: Counted, delays: Delays) -> None:
            queue = names.task_queue("default")
            for number in range(3):
                await delays.publish_until_confirmed(3, queue, message(f"first {number}"))
            assert connection.declared == [2]
            await _wait_for_tasks(connection, queue, 3)
            with channel_to(settings.broker_url) as channel:
                channel.queue_delete(names.delay(0))
            proxy.cut()
            await delays.publish_until_confirmed(3, queue, message("second"))
            assert connection.declared == [2, 2]
            assert await connection.queue_counts(names.delay(0)) == (0, 0)
            await _wait_for_tasks(connection, queue, 4)

        return use

    with proxy_to(settings.broker_url) as (proxy, url):
        with_delays(replace(settings, broker_url=url), use_with(proxy))


async def _wait_for_tasks(connection: Connection, queue: str, count: int) -> None:
    async with asyncio.timeout(GENEROUS_SECONDS):
        while await connection.queue_counts(queue) != (count, 0):
            await asyncio.sleep(0.02)


def test_concurrent_publishes_declare_one_after_the_other(settings: Settings, names: Names) -> None:
    """Two at once declare what they need once; one that needs more levels waits for its turn. All messages come."""

    async def use(connection: Counted, delays: Delays) -> None:
        queue = names.task_queue("default")
        arrivals = await Arrivals(connection).of(queue)
        await asyncio.gather(
            *(delays.publish_until_confirmed(1, queue, message(f"equal {number}")) for number in range(2))
        )
        assert connection.declared == [1]
        await asyncio.gather(
            *(delays.publish_until_confirmed(2 + number, queue, message(f"more {number}")) for number in range(4))
        )
        assert connection.declared == [1, 2, 3]
        assert not connection.overlapped
        came = [(await arrivals.next(5))[1].body.decode() for _ in range(6)]
        assert sorted(came) == ["equal 0", "equal 1", *(f"more {number}" for number in range(4))]

    with_delays(settings, use)


def test_a_lost_connection_does_not_lose_a_publish(settings: Settings, names: Names) -> None:
    """What is published while there is no broker waits for it; who would rather fail is told at once."""

    def use_with(proxy: Proxy) -> Callable[[Counted, Delays], Awaitable[None]]:
        async def use(connection: Counted, delays: Delays) -> None:
            proxy.refuse()
            async with asyncio.timeout(GENEROUS_SECONDS):
                while connection.is_ready:
                    await asyncio.sleep(0.01)
            with pytest.raises(ConnectionLostError):
                await delays.declare(1)
            publishing = asyncio.ensure_future(
                delays.publish_until_confirmed(1, names.task_queue("default"), message("kept"))
            )
            await asyncio.sleep(0)
            assert not publishing.done()
            proxy.refuse(False)
            await publishing

        return use

    with proxy_to(settings.broker_url) as (proxy, url):
        with_delays(replace(settings, broker_url=url), use_with(proxy))
    assert [letter.body for letter in take_all(settings.broker_url, names.task_queue("default"), 1)] == [b"kept"]


def test_the_log_is_silent_when_all_is_well(settings: Settings, names: Names, caplog: pytest.LogCaptureFixture) -> None:
    """Declaring levels for the first time is nothing to report."""

    async def use(connection: Counted, delays: Delays) -> None:
        await delays.publish_until_confirmed(1, names.task_queue("default"), message())

    with_delays(settings, use)
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []
    assert queue_length(settings.broker_url, names.dead_queue) == 0
