"""Durable subscriptions of `limetask.aio` and the broker's consumer timeout, which takes away what is not acked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from limetask import Settings, aio
from limetask.topology import Names
from tests.broker import channel_to, queue_length
from tests.faults.conftest import IMPATIENCE_SECONDS
from tests.waiting import eventually

_TEST_SECONDS = 90.0
_LOST = "the connection to the broker is lost"


@pytest.fixture
def queue(impatient_settings: Settings) -> Iterator[str]:
    """The queue of the subscription `audit`, which is deleted afterwards."""
    name = Names(impatient_settings.namespace).handler_queue("audit")
    yield name
    with channel_to(impatient_settings.broker_url) as channel:
        channel.queue_delete(name)


def run(main: Coroutine[Any, Any, None]) -> None:
    async def within_deadline() -> None:
        try:
            async with asyncio.timeout(_TEST_SECONDS):
                await main
        finally:
            await aio.close()

    asyncio.run(within_deadline())


async def publish(*bodies: object) -> None:
    for body in bodies:
        await aio.publish_event("acme", "shop.paid.v1", body)


async def until_logged(caplog: pytest.LogCaptureFixture, text: str, times: int) -> None:
    await asyncio.to_thread(eventually, lambda: caplog.text.count(text) >= times, 40, text)


def test_work_beyond_the_consumer_timeout_is_handed_out_once(
    impatient_settings: Settings, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker takes the event away under its reader, again and again, and then leaves the reader in peace."""

    async def main() -> None:
        async with aio.subscribe("shop.#", durable="audit") as events:
            await publish("long", "next", "last")
            heard = [(await anext(events)).body]
            await until_logged(caplog, _LOST, 2)
            await asyncio.sleep(3 * IMPATIENCE_SECONDS)  # the work
            heard += [(await anext(events)).body for _ in range(2)]
            assert heard == ["long", "next", "last"]
            # Delivered three times, the event is waited for no more.
            assert caplog.text.count(_LOST) in (2, 3)

    with caplog.at_level(logging.INFO, "limetask"):
        run(main())
    assert queue_length(impatient_settings.broker_url, queue) == 1, (
        "the last one was not finished, and no other is left"
    )


def test_many_events_that_take_their_time_lose_no_connection(
    impatient_settings: Settings, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What waits for a busy reader does not wait where the broker takes it away: each comes once, in order."""

    async def main() -> None:
        async with aio.subscribe("shop.#", durable="audit") as events:
            await publish(*range(60))
            heard = []
            for number in range(60):
                heard.append((await anext(events)).body)
                if number > 50:
                    await asyncio.sleep(IMPATIENCE_SECONDS / 4)  # the work, of quick ones before
            assert heard == [*range(60)]

    with caplog.at_level(logging.INFO, "limetask"):
        run(main())
    assert _LOST not in caplog.text


def test_a_subscription_that_is_not_read_loses_no_connection(
    impatient_settings: Settings, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It holds nothing for as long as nobody asks; when somebody does, all is there."""

    async def main() -> None:
        async with aio.subscribe("shop.#", durable="audit") as events:
            await publish(1, 2)
            await asyncio.sleep(3 * IMPATIENCE_SECONDS)
            assert [(await anext(events)).body for _ in range(2)] == [1, 2]

    with caplog.at_level(logging.INFO, "limetask"):
        run(main())
    assert _LOST not in caplog.text
