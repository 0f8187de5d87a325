"""Subscriptions of `limetask.aio` against a real broker: live and durable ones."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pika
import pytest

from limetask import (
    BrokerError,
    BrokerUnreachableError,
    DeclarationError,
    Event,
    EventPatternError,
    Settings,
    aio,
    configure,
    on_failure,
)
from limetask.aio import EventsMissed, subscription
from limetask.aio.session import Session
from limetask.errors import ConnectionLostError
from limetask.events import encode_event
from limetask.topology import Names
from tests.broker import channel_to, queue_length, take_all
from tests.loops import run, take, until
from tests.proxy import proxy_to
from tests.waiting import eventually
from tests.worker import Worker


def publish_raw(settings: Settings, routing_key: str, body: bytes, **properties: Any) -> None:
    """Publish on the events exchange what limetask would not."""
    with channel_to(settings.broker_url) as channel:
        exchange = Names(settings.namespace).events_exchange
        channel.basic_publish(exchange, routing_key, body, pika.BasicProperties(**properties))


def publish_elsewhere(settings: Settings, body: Any) -> None:
    """Publish an event on a connection of its own."""
    _, envelope = encode_event("acme", "shop.paid.v1", body, None, 1000)
    publish_raw(settings, "shop.paid.v1", envelope.body, delivery_mode=2)


def handler_queue(settings: Settings, name: str) -> str:
    return Names(settings.namespace).handler_queue(name)


@pytest.fixture
def durable(settings: Settings) -> Iterator[str]:
    """The name of a durable subscription, whose queue is deleted afterwards."""
    name = "audit"
    yield name
    with channel_to(settings.broker_url) as channel:
        channel.queue_delete(handler_queue(settings, name))


def test_a_live_subscription_hears_what_it_wants(settings: Settings) -> None:
    """Only what fits a pattern and the application, in the order in which it was published."""

    async def main() -> None:
        async with aio.subscribe("shop.order.#", "shop.*.paid.v1", app="acme") as events:
            await aio.publish_event("acme", "shop.stock.low.v1", "not this")
            await aio.publish_event("other", "shop.order.paid.v1", "nor this")
            for number in range(50):
                await aio.publish_event("acme", "shop.order.paid.v1", number)
            heard = await take(events, 50)
        assert [event.body for event in heard] == list(range(50))

    run(main())


def test_without_an_application_all_come(settings: Settings) -> None:
    """An application sees its own events only when it asks with `app=`."""

    async def main() -> set[str]:
        async with aio.subscribe("shop.#") as events:
            await aio.publish_event("acme", "shop.paid.v1")
            await aio.publish_event("other", "shop.paid.v1")
            return {event.app for event in await take(events, 2)}

    assert run(main()) == {"acme", "other"}


def test_a_pattern_may_ask_for_tasks(settings: Settings, start_worker: Callable[..., Worker]) -> None:
    """An EventPattern's shell pattern of task names is kept to, which the broker cannot do."""
    start_worker(settings, "shop", "--processes", "1")

    async def main() -> None:
        async with aio.subscribe(on_failure("shop.tasks.fai*")) as events:
            await aio.send_task("shop.tasks.crash", "acme")
            await aio.send_task("shop.tasks.fail", "acme", "on purpose")
            [event] = await take(events, 1)
        assert (event.task_name, event.result) == ("shop.tasks.fail", "on purpose")

    run(main())


def test_leaving_the_loop_closes_the_subscription(settings: Settings) -> None:
    """After `break` its connection goes, without anybody closing it."""
    with proxy_to(settings.broker_url) as (proxy, url):
        configure(replace(settings, broker_url=url))

        async def main() -> None:
            reading = asyncio.create_task(first_of("shop.#"))
            await until(lambda: proxy.connections == 1, "a subscription")
            while not reading.done():  # it is bound at some moment
                await aio.publish_event("acme", "shop.paid.v1")
                await asyncio.sleep(0.01)
            await until(lambda: len(asyncio.all_tasks()) < tasks_while_reading[0], "the end of its tasks")

        tasks_while_reading = []

        async def first_of(pattern: str) -> None:
            async for event in aio.subscribe(pattern):
                assert event.app == "acme"
                tasks_while_reading.append(len(asyncio.all_tasks()))
                break

        run(main())


def test_closing_wakes_who_waits(settings: Settings) -> None:
    """`aio.close()` ends an iteration that waits for an event, with an error."""

    async def main() -> None:
        async with aio.subscribe("shop.#") as events:
            waiting = asyncio.create_task(take(events, 1))
            await asyncio.sleep(0)
            await aio.close()
            with pytest.raises(ConnectionLostError):
                await waiting

    run(main())


@pytest.mark.parametrize("pattern", ["", "core..task", "core.task.shop.tasks.a*.v1", None])
def test_an_invalid_pattern_is_an_error_at_once(settings: Settings, pattern: Any) -> None:
    """Before anything is connected to."""

    async def main() -> None:
        with pytest.raises(EventPatternError):
            aio.subscribe(pattern)
        with pytest.raises(EventPatternError, match="needs a pattern"):
            aio.subscribe()

    run(main())


@pytest.mark.parametrize("name", ["", "two words", "a..b", "x" * 81, "all.#", 7])
def test_an_invalid_name_is_an_error_at_once(settings: Settings, name: Any) -> None:
    """A durable subscription's name is part of a queue's and a binding's."""

    async def main() -> None:
        with pytest.raises(DeclarationError, match="durable="):
            aio.subscribe("shop.#", durable=name)

    run(main())


@pytest.mark.parametrize("durable_name", [None, "audit"])
def test_an_absent_broker_is_an_error_within_the_deadline(durable_name: str | None) -> None:
    """`subscribe` does not wait for ever at its start."""
    configure(Settings(broker_url="amqp://127.0.0.1:1/", send_timeout=1.0))

    async def main() -> None:
        with pytest.raises(BrokerUnreachableError, match="no RabbitMQ"):  # noqa: PT012 - a loop is what is tested
            async for _ in aio.subscribe("shop.#", durable=durable_name):
                raise AssertionError("no event can come")

    started = time.monotonic()
    run(main())
    assert time.monotonic() - started < 20


def test_a_gap_is_told(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """After a lost connection: in the log, by the counter, and in its place among the events if it is asked for."""
    with proxy_to(settings.broker_url) as (proxy, url), caplog.at_level(logging.WARNING, "limetask"):
        configure(replace(settings, broker_url=url))

        async def main() -> None:
            async with aio.subscribe("shop.#") as plain, aio.subscribe("shop.#", tell_missed=True) as telling:
                await aio.publish_event("acme", "shop.paid.v1", 1)
                assert [event.body for event in await take(plain, 1)] == [1]
                [first] = await take(telling, 1)
                proxy.cut()
                await until(lambda: plain.gaps and telling.gaps, "gaps that are counted")
                await aio.publish_event("acme", "shop.paid.v1", 2)
                assert [event.body for event in await take(plain, 1)] == [2]
                gap, second = await take(telling, 2)
                assert isinstance(gap, EventsMissed)
                assert gap.since is not None
                assert gap.since < gap.until < datetime.now(UTC)
                assert [event.body for event in (first, second) if isinstance(event, Event)] == [1, 2]

        run(main())
    assert "events of shop.# may have been missed: the connection to the broker was lost" in caplog.text


def test_a_slow_reader_hears_that_events_are_dropped(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """When more wait than a live subscription's queue holds, the oldest go, and the reader hears of that too."""
    monkeypatch.setattr(subscription, "LIVE_QUEUE_LENGTH", 300)

    async def main() -> None:
        async with aio.subscribe("shop.#", tell_missed=True) as events:
            await asyncio.gather(*(aio.publish_event("acme", "shop.paid.v1", number) for number in range(800)))
            heard: list[Event | EventsMissed] = []
            while not heard or not isinstance(heard[-1], EventsMissed):
                heard += await take(events, 1)
            assert "slower than they come" in heard[-1].reason
            assert len(heard) <= 301

    run(main())


def test_a_durable_subscription_keeps_what_happens_meanwhile(settings: Settings, durable: str) -> None:
    """Events wait while nobody listens, in a queue like a handler's; those that were processed do not come again."""

    async def listen(count: int, publish: int) -> list[Any]:
        async with aio.subscribe("shop.#", durable=durable) as events:
            for number in range(publish):
                await aio.publish_event("acme", "shop.paid.v1", number)
            heard = [event.body for event in await take(events, count)]
            assert events.gaps == 0
            return heard

    assert run(listen(3, publish=5)) == [0, 1, 2]
    run(aio.publish_event("acme", "shop.paid.v1", "meanwhile"))
    # The third was handed out and not finished: nobody asked for a fourth.
    assert run(listen(4, publish=0)) == [2, 3, 4, "meanwhile"]


def test_a_durable_subscription_acks_what_it_does_not_want(settings: Settings, durable: str) -> None:
    """Another application's events do not stay in the queue."""

    async def main() -> None:
        async with aio.subscribe("shop.#", app="acme", durable=durable) as events:
            for number in range(30):
                await aio.publish_event("other", "shop.paid.v1", number)
            await aio.publish_event("acme", "shop.paid.v1", "ours")
            assert [event.body for event in await take(events, 1)] == ["ours"]
            asking = asyncio.create_task(take(events, 1))
            await asyncio.to_thread(
                eventually, lambda: queue_length(settings.broker_url, handler_queue(settings, durable)) == 0
            )
            await aio.publish_event("acme", "shop.paid.v1", "last")
            await asking

    run(main())
    assert queue_length(settings.broker_url, handler_queue(settings, durable)) == 1  # the last one was not finished


def test_a_durable_subscription_whose_queue_is_deleted_goes_on(
    settings: Settings, durable: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its queue is made anew, and the log says what has happened to the former one."""
    queue = handler_queue(settings, durable)

    async def main() -> None:
        async with aio.subscribe("shop.#", durable=durable) as events:
            with channel_to(settings.broker_url) as channel:
                channel.queue_delete(queue)
            await asyncio.to_thread(eventually, lambda: "connected to the broker again" in caplog.text)
            await aio.publish_event("acme", "shop.paid.v1", "after")
            assert [event.body for event in await take(events, 1)] == ["after"]

    with caplog.at_level("INFO"):
        run(main())
    assert f"the broker cancelled the consumer of {queue}: the queue was deleted" in caplog.text


def test_a_durable_subscription_outlives_its_connection(settings: Settings, durable: str) -> None:
    """What was published while it was away comes afterwards; what is being worked on is not handed out again."""
    with proxy_to(settings.broker_url) as (proxy, url):
        configure(replace(settings, broker_url=url))

        async def main() -> None:
            async with aio.subscribe("shop.#", durable=durable) as events:
                publish_elsewhere(settings, 1)
                await take(events, 1)
                proxy.refuse()
                publish_elsewhere(settings, 2)
                proxy.refuse(False)
                assert [event.body for event in await take(events, 1)] == [2]
                assert events.gaps == 0

        run(main())
    assert queue_length(settings.broker_url, handler_queue(settings, durable)) == 1  # the last one was not finished


def test_an_event_that_is_done_while_the_connection_is_lost_does_not_come_again(
    settings: Settings, durable: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its ack went nowhere: it is acked when it is delivered again, whether that was before its end or after it."""
    with proxy_to(settings.broker_url) as (proxy, url), caplog.at_level(logging.INFO, "limetask"):
        configure(replace(settings, broker_url=url))

        async def main() -> None:
            async with aio.subscribe("shop.#", durable=durable) as events:
                for number in range(3):
                    publish_elsewhere(settings, number)
                assert [event.body for event in await take(events, 1)] == [0]
                proxy.cut()
                await until(lambda: "connected to the broker again" in caplog.text, "a new connection")
                proxy.refuse()
                await until(lambda: caplog.text.count("the connection to the broker is lost") == 2, "a lost one")
                asking = asyncio.ensure_future(take(events, 2))
                await asyncio.sleep(0)
                proxy.refuse(False)
                assert [event.body for event in await asking] == [1, 2]

        run(main())
    assert queue_length(settings.broker_url, handler_queue(settings, durable)) == 1


def test_events_do_not_wait_for_a_busy_reader_while_another_is_free(settings: Settings, durable: str) -> None:
    """One that was quick, and then is not, gives back what was ahead; one that asks for nothing holds nothing."""

    async def main() -> None:
        async with (
            aio.subscribe("shop.#", durable=durable) as idle,
            aio.subscribe("shop.#", durable=durable) as busy,
        ):
            bodies = set(range(100))
            await asyncio.gather(*(aio.publish_event("acme", "shop.paid.v1", number) for number in bodies))
            heard = {event.body for event in await take(busy, 50)}
            async with aio.subscribe("shop.#", durable=durable) as free:
                while len(heard) < 100:
                    heard |= {event.body for event in await take(free, 1)}
                assert heard == bodies
                await aio.publish_event("acme", "shop.paid.v1", "to the one that asks")
                await take(free, 1)
            assert idle.gaps == busy.gaps == 0
            await aio.publish_event("acme", "shop.paid.v1", "to who was busy")
            again = [event.body for event in await take(busy, 2)]
            assert again == ["to the one that asks", "to who was busy"]
            asking = asyncio.ensure_future(take(idle, 1))
            while not asking.done():
                await aio.publish_event("acme", "shop.paid.v1", "to who was idle")
                await asyncio.wait([asking], timeout=0.1)

    run(main())


def test_opening_raises_in_time_though_the_broker_falls_silent(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To hang up on a broker that answers nothing takes longer than the deadline: `aio.close` waits for it instead."""
    consume_live = Session.consume_live

    with proxy_to(settings.broker_url) as (proxy, url):

        def consume_in_silence(session: Session, *args: Any, **options: Any) -> Coroutine[Any, Any, str]:
            proxy.stall("client")
            return consume_live(session, *args, **options)

        monkeypatch.setattr(Session, "consume_live", consume_in_silence)
        configure(replace(settings, broker_url=url, send_timeout=1.0))

        async def main() -> None:
            events = aio.subscribe("shop.#")
            started = time.monotonic()
            with pytest.raises(BrokerError):
                await events.open()
            assert time.monotonic() - started < 20
            with pytest.raises(ConnectionLostError, match="subscribe anew"):
                await events.open()
            await aio.close()
            assert asyncio.all_tasks() == {asyncio.current_task()}

        run(main())


def test_what_is_no_event_is_passed_over_by_a_live_subscription(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the next event comes."""

    async def main() -> None:
        async with aio.subscribe("shop.#") as events:
            for body in (b"", b"[]", b'{"id": 1}', b"\xff"):
                publish_raw(settings, "shop.paid.v1", body)
            await aio.publish_event("acme", "shop.paid.v1", "well")
            assert [event.body for event in await take(events, 1)] == ["well"]

    run(main())
    assert caplog.text.count("ignoring a message among the events") == 4


def test_what_is_no_event_becomes_a_dead_letter_of_a_durable_one(settings: Settings, durable: str) -> None:
    """With its body and the reason; and headers that no Python value can hold are no obstacle."""

    async def main() -> None:
        async with aio.subscribe("shop.#", durable=durable) as events:
            publish_raw(settings, "shop.paid.v1", b"nonsense", headers={"x": 1}, delivery_mode=2)
            publish_raw(settings, "shop.paid.v1", b"{}", headers={"far": datetime(9999, 12, 31, tzinfo=UTC)})
            await aio.publish_event("acme", "shop.paid.v1", "well")
            assert [event.body for event in await take(events, 1)] == ["well"]

    run(main())
    first, second = take_all(settings.broker_url, Names(settings.namespace).dead_queue, 2)
    assert (first.body, first.headers["queue"]) == (b"nonsense", handler_queue(settings, durable))
    assert "no valid JSON" in first.headers["reason"]
    assert second.body == b"{}"


def test_cancelling_a_step_loses_no_event(settings: Settings, durable: str) -> None:
    """A reader that gives up waiting, again and again, gets every event in the end, once."""

    async def main() -> None:
        async with aio.subscribe("shop.#", durable=durable) as events:
            heard: list[Any] = []
            publishing = asyncio.gather(*(aio.publish_event("acme", "shop.paid.v1", number) for number in range(200)))
            while len(heard) < 200:
                try:
                    async with asyncio.timeout(0.001):
                        heard.append((await anext(events)).body)
                except TimeoutError:
                    continue
            await publishing
        assert sorted(heard) == list(range(200))

    run(main())
