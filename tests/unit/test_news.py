"""What a supervisor reports of a process that has died, to a broker that is played here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

from limetask import Status, ids
from limetask.amqp import Connection
from limetask.message import Completion, Envelope, MessageKind, WorkerLost
from limetask.records import encode_completion
from limetask.topology import Names
from limetask_worker.news import News

NOW = datetime.now(UTC)
LOST = WorkerLost("host.1.abcdef.3", "it was killed", NOW, begun=[])


class Broker:
    """A connection that notes what is published, and confirms it when it is allowed to."""

    def __init__(self) -> None:
        self.published: list[Envelope] = []
        self.confirms = asyncio.Event()

    async def publish_if_it_fits(self, _exchange: str, _key: str, envelope: Envelope) -> None:
        self.published.append(envelope)
        await self.confirms.wait()

    publish_until_confirmed = publish_if_it_fits


def end() -> bytes:
    """The event of an end that a process has left."""
    completion = Completion(
        *(ids.new_event_id(), ids.new_task_id("shop"), "pkg.add", "shop", Status.SUCCESS, 1, None, 1, LOST.worker),
        *(NOW, NOW, NOW),
    )
    return encode_completion(completion).body


def reported(ends: list[bytes], act: Callable[[Broker], Any]) -> list[Envelope]:
    """Report a death with these ends; `act` is called when all is published that needs no confirm."""

    async def scenario() -> list[Envelope]:
        broker = Broker()
        news = News(cast(Connection, broker), Names("limetask"))
        news.tell_of_death(LOST, ends)
        for _ in range(5):
            await asyncio.sleep(0)
        act(broker)
        broker.confirms.set()
        await news.finish(in_a_hurry=False)
        return broker.published

    return asyncio.run(scenario())


def test_all_ends_are_told_together_and_the_death_after_them() -> None:
    """Not one after the other, which would take long, and the death only when all are confirmed."""
    ends = [end() for _ in range(20)]
    before: list[int] = []
    published = reported(ends, lambda broker: before.append(len(broker.published)))
    assert before == [20]
    assert [one.body for one in published[:20]] == ends
    assert [one.kind for one in published[20:]] == [MessageKind.WORKER_LOST]


def test_an_end_that_cannot_be_read_holds_up_nothing() -> None:
    """The other ends and the death are told; its task counts as lost then."""
    good = end()
    published = reported([end()[:-20], good], lambda _broker: None)
    assert [one.body for one in published[:1]] == [good]
    assert [one.kind for one in published[1:]] == [MessageKind.WORKER_LOST]
