"""How a worker asks for the recorder's word, at a broker that is played here."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import cast

import pytest

from limetask import ids
from limetask.amqp import Connection, Delivery, ReplyQueue
from limetask.message import Decision, Envelope, Started, Verdict
from limetask.records import encode_verdict
from limetask.topology import Names
from limetask_worker import claims as claims_module
from limetask_worker.claims import Claims

NOW = datetime(2026, 11, 27, 6, 30, tzinfo=UTC)


class Broker:
    """A connection whose reply queue stays empty until the connection has been renewed `needed` times."""

    def __init__(self, needed: int) -> None:
        self.needed = needed
        self.renewals = 0
        self.reply_queue: ReplyQueue

    def set_reply_queue(self, reply_queue: ReplyQueue) -> None:
        self.reply_queue = reply_queue

    def renew(self, reason: str) -> None:
        self.renewals += 1

    async def publish_until_confirmed(self, exchange: str, key: str, envelope: Envelope) -> None:
        if self.renewals >= self.needed:
            verdict = Verdict(START.task_id, 1, NOW, Decision.RUN, 1)
            answer = Delivery(1, 1, "", False, encode_verdict(verdict))
            asyncio.get_running_loop().call_soon(self.reply_queue.on_delivery, answer)


START = Started(ids.new_task_id("shop"), "pkg.tasks.add", "shop", 1, "host.1.a", False, NOW, NOW)


@pytest.mark.parametrize("needed", [0, 1, 3])
def test_a_reply_queue_that_seems_gone_is_made_anew(needed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The question is asked again and again, and the connection renewed in between, until there is an answer."""
    monkeypatch.setattr(claims_module, "_ASK_AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(claims_module, "_FIRST_PAUSE_SECONDS", 0.02)
    broker = Broker(needed)

    async def scenario() -> Verdict:
        claims = Claims(cast(Connection, broker), Names("limetask"))
        async with asyncio.timeout(20):
            return await claims.verdict(START, may_run_again=False, may_begin_elsewhere=True)

    assert asyncio.run(scenario()).decision is Decision.RUN
    assert broker.renewals == needed
