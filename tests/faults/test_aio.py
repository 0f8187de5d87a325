"""`limetask.aio` while its broker restarts, stands still, or is away."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from limetask import (
    BrokerError,
    BrokerRefusedError,
    LimetaskError,
    SendOutcomeUnknownError,
    Settings,
    Status,
    aio,
    configure,
)
from limetask.topology import Names
from tests.broker import channel_to, declare_namespace
from tests.faults.nodes import Node
from tests.proxy import proxy_to
from tests.worker import Worker

T = TypeVar("T")

_SECONDS = 60.0
_GOES_ON_SECONDS = 5.0


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a test's coroutine on a loop of its own, and close the client of that loop; fail if it hangs."""

    async def within_deadline() -> T:
        try:
            async with asyncio.timeout(_SECONDS):
                return await main
        finally:
            await aio.close()

    return asyncio.run(within_deadline())


@pytest.fixture
def broken_settings(own_broker_settings: Settings) -> Settings:
    """Settings in force here with a broker that this test may break."""
    configure(own_broker_settings)
    return own_broker_settings


async def publish_until(done: Callable[[], bool]) -> None:
    """Publish one event after the other, whatever becomes of each."""
    while not done():
        try:
            await aio.publish_event("acme", "shop.paid.v1")
        except LimetaskError:
            continue
        await asyncio.sleep(0.05)


# A quorum queue that was made just before a SIGKILL of its only node has no leader after it: a durable subscription's
# node is stopped in order.
@pytest.mark.parametrize(
    ("durable", "ending"), [(None, signal.SIGKILL), (None, signal.SIGTERM), ("audit", signal.SIGTERM)]
)
def test_a_subscription_goes_on_after_a_restart(
    own_broker: Node,
    broken_settings: Settings,
    durable: str | None,
    ending: signal.Signals,
    record_property: Callable[[str, object], None],
) -> None:
    """The node ends and is started again: events come within 5 s of its being back, and a live one tells the gap."""

    async def main() -> float:
        async with aio.subscribe("shop.#", durable=durable) as events:
            await aio.publish_event("acme", "shop.paid.v1")
            await anext(events)
            await asyncio.to_thread(own_broker.kill, ending)
            await asyncio.to_thread(own_broker.up)
            back = time.monotonic()
            waiting = asyncio.ensure_future(anext(events))
            publishing = asyncio.create_task(publish_until(waiting.done))
            async with asyncio.timeout(_GOES_ON_SECONDS):
                await waiting
            seconds = time.monotonic() - back
            await publishing
            assert events.gaps == (0 if durable else 1)
            return seconds

    seconds = run(main())
    record_property("seconds", seconds)
    print(f"went on after {seconds:.2f} s")


def test_a_durable_subscription_misses_nothing_in_a_restart(own_broker: Node, broken_settings: Settings) -> None:
    """What was confirmed before the node was stopped, and not yet read, comes afterwards."""

    async def main() -> None:
        async with aio.subscribe("shop.#", durable="audit") as events:
            sent = [await aio.publish_event("acme", "shop.paid.v1", number) for number in range(100)]
            heard = {(await anext(events)).id for _ in range(10)}
            await asyncio.to_thread(own_broker.kill, signal.SIGTERM)
            await asyncio.to_thread(own_broker.up)
            while len(heard) < 100:
                heard.add((await anext(events)).id)
            assert heard == set(sent)

    run(main())


def test_a_frozen_broker_makes_calls_raise_in_time(own_broker: Node, broken_settings: Settings) -> None:
    """SIGSTOP of the node: each call raises soon after its deadline, and works again afterwards."""

    async def in_time(call: Callable[[], Coroutine[Any, Any, object]], *errors: type[Exception]) -> None:
        started = time.monotonic()
        with pytest.raises(errors):  # noqa: PT012 - whichever call meets it
            while True:  # until the last of its threads has stopped it answers
                started = time.monotonic()
                await call()
        assert time.monotonic() - started < broken_settings.send_timeout + 4.0

    async def main() -> None:
        await aio.send_task("a.task", "acme")
        with own_broker.frozen():
            await asyncio.gather(
                in_time(lambda: aio.send_task("a.task", "acme"), SendOutcomeUnknownError),
                in_time(lambda: aio.publish_event("acme", "shop.paid.v1"), SendOutcomeUnknownError),
                in_time(lambda: aio.subscribe("shop.#").open(), BrokerError),
            )
        await aio.send_task("a.task", "acme")

    run(main())


def test_a_blocked_broker_makes_sends_raise_in_time(own_broker: Node, broken_settings: Settings) -> None:
    """A disk alarm: a send raises soon after its deadline, and works again afterwards."""

    async def main() -> None:
        await aio.send_task("a.task", "acme")
        await asyncio.to_thread(own_broker.ctl, "set_disk_free_limit", "9000GB")
        try:
            started = time.monotonic()
            with pytest.raises(SendOutcomeUnknownError):  # noqa: PT012 - whichever send meets it
                while True:  # the alarm takes a moment
                    started = time.monotonic()
                    await aio.send_task("a.task", "acme")
            assert time.monotonic() - started < broken_settings.send_timeout + 4.0
        finally:
            await asyncio.to_thread(own_broker.ctl, "set_disk_free_limit", "50MB")
        await aio.send_task("a.task", "acme")

    run(main())


def test_an_absent_broker_makes_calls_raise_in_time(own_broker: Node, broken_settings: Settings) -> None:
    """The node is killed under an open connection: calls raise in time until it is back."""

    async def main() -> None:
        await aio.send_task("a.task", "acme")
        await asyncio.to_thread(own_broker.kill)
        started = time.monotonic()
        with pytest.raises((BrokerError, SendOutcomeUnknownError)):
            await aio.send_task("a.task", "acme")
        assert time.monotonic() - started < broken_settings.send_timeout + 4.0
        await asyncio.to_thread(own_broker.up)
        await aio.send_task("a.task", "acme")

    run(main())


def test_a_lost_confirm_is_repeated_and_runs_once(
    settings: Settings, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """The connection is cut when the broker has the task, and before it says so: it is sent again, and run once."""
    start_worker(settings, "shop", "--processes", "1")
    traces = tmp_path / "traces"
    with proxy_to(settings.broker_url) as (proxy, url):

        async def main() -> None:
            configure(replace(settings, broker_url=url))
            await aio.send_task("shop.tasks.add", "acme", 1, 2)
            proxy.stall("client")
            cutting = asyncio.create_task(asyncio.to_thread(proxy.cut_before_answer))
            sent = await aio.send_task("shop.tasks.count_run", "acme", str(traces), 7)
            await cutting
            assert (await aio.wait(sent, _SECONDS)).status is Status.SUCCESS
            await aio.wait(await aio.send_task("shop.tasks.add", "acme", 1, 2), _SECONDS)

        run(main())
    assert traces.read_text().splitlines() == ["7"]


def test_a_queue_that_is_deleted_under_a_subscription_is_made_anew(settings: Settings) -> None:
    """The broker cancels the consumer: a durable subscription declares its queue again and goes on."""
    queue = Names(settings.namespace).handler_queue("audit")

    async def main() -> None:
        async with aio.subscribe("shop.#", durable="audit") as events:
            await asyncio.to_thread(delete_queue, settings.broker_url, queue)
            waiting = asyncio.ensure_future(anext(events))
            publishing = asyncio.create_task(publish_until(waiting.done))
            async with asyncio.timeout(_GOES_ON_SECONDS):
                await waiting
            await publishing

    try:
        run(main())
    finally:
        delete_queue(settings.broker_url, queue)


def test_a_connection_that_falls_silent_is_made_anew(settings: Settings) -> None:
    """Without a byte from the broker, and without an error of the system: the heartbeat tells, as for the others."""
    with proxy_to(settings.broker_url) as (proxy, url):
        configure(replace(settings, broker_url=url, heartbeat=3))

        async def main() -> None:
            async with aio.subscribe("shop.#") as events:
                proxy.stall("client")
                while proxy.connections == 1:  # it tries anew
                    await asyncio.sleep(0.05)
                proxy.flow()
                waiting = asyncio.ensure_future(anext(events))
                await publish_until(waiting.done)
                assert events.gaps == 1

        run(main())


def test_a_user_who_may_not_declare_needs_what_is_there(own_broker: Node, broken_settings: Settings) -> None:
    """Without the permission to configure: what is missing is told; when somebody has declared it, all goes."""
    host = broken_settings.broker_url.rpartition("@")[2]

    async def main() -> None:
        with pytest.raises(BrokerRefusedError, match=r"is missing .* 'sender' may not declare it .*limetask setup"):
            await aio.send_task("a.task", "acme")
        await asyncio.to_thread(declare_namespace, broken_settings.broker_url, broken_settings.namespace)
        await aio.send_task("a.task", "acme")
        await aio.publish_event("acme", "shop.paid.v1")

    own_broker.ctl("add_user", "sender", "secret")
    try:
        own_broker.ctl("set_permissions", "-p", "/", "sender", "^$", ".*", ".*")
        configure(replace(broken_settings, broker_url=f"amqp://sender:secret@{host}"))
        run(main())
    finally:
        own_broker.ctl("delete_user", "sender")


def delete_queue(broker_url: str, queue: str) -> None:
    with channel_to(broker_url) as channel:
        channel.queue_delete(queue)
