"""How deliveries come in, from a broker that is played here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from limetask.amqp import Connection, Delivery, Subscription
from limetask.errors import ConnectionLostError
from limetask.message import Envelope
from limetask.topology import Names, QoS
from limetask_worker import intake as intake_module
from limetask_worker.intake import Intake

DELIVERY = Delivery(1, 1, "limetask.tasks.default", False, Envelope(b"", None))


class Broker:
    """A connection whose consumers cannot be cancelled: it fails to, or gets no answer."""

    def __init__(self, cancel: Callable[[], Any]) -> None:
        self.cancel_consumers = cancel
        self.connected_at = 0.0
        self.given_back: list[Delivery] = []
        self.deliver: Callable[[Delivery], None]

    async def consume(self, subscription: Subscription) -> None:
        self.deliver = subscription.on_delivery

    def give_back(self, delivery: Delivery) -> None:
        self.given_back.append(delivery)


async def never_answered() -> None:
    await asyncio.Event().wait()


async def lost() -> None:
    raise ConnectionLostError("gone")


@pytest.mark.parametrize("cancel", [never_answered, lost])
def test_a_stop_does_not_wait_for_a_broker_that_does_not_answer(
    cancel: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends all the same, and what the broker sends afterwards goes back unseen."""
    monkeypatch.setattr(intake_module, "_CANCEL_SECONDS", 0.05)
    admitted: list[tuple[QoS, Delivery]] = []

    async def scenario() -> Broker:
        broker = Broker(cancel)
        intake = Intake(
            cast(Connection, broker),
            Names("limetask"),
            ["default"],
            fewest=1,
            most=8,
            admit=lambda qos, delivery, _: admitted.append((qos, delivery)),
            look_again=lambda: None,
            give_back=lambda: None,
        )
        await intake.start()
        broker.deliver(DELIVERY)
        async with asyncio.timeout(10):
            await intake.stop()
        broker.deliver(DELIVERY)
        return broker

    broker = asyncio.run(scenario())
    assert admitted == [("default", DELIVERY)]
    assert broker.given_back == [DELIVERY]
