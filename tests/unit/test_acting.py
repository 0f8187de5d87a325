"""What is acted on together, and what becomes of the strange among it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from limetask.amqp import Connection, Delivery
from limetask.errors import MessageRefusedError
from limetask.message import Envelope
from limetask.topology import Names
from limetask_worker.acting import Acting
from limetask_worker.store_writer import RecordRejectedError


class Publisher:
    """Takes dead letters."""

    def __init__(self) -> None:
        self.letters: list[Envelope] = []

    async def publish_if_it_fits(self, _exchange: str, _key: str, envelope: Envelope) -> None:
        self.letters.append(envelope)


def deliveries(count: int) -> list[Delivery]:
    return [Delivery(tag, 1, "results", False, Envelope(str(tag).encode(), None)) for tag in range(count)]


def number_in(delivery: Delivery) -> Sequence[int]:
    return [int(delivery.envelope.body)]


def act_together(count: int, refused: set[int], error: Exception) -> tuple[list[list[int]], list[bytes]]:
    """Act on so many deliveries, and return what was acted on, and the dead letters."""
    publisher, acted = Publisher(), []

    async def act(numbers: Sequence[int]) -> None:
        if refused & set(numbers):
            raise error
        acted.append(list(numbers))

    acting = Acting(cast(Connection, publisher), Names("limetask"))
    asyncio.run(acting.together(deliveries(count), number_in, act))
    return acted, [letter.body for letter in publisher.letters]


@pytest.mark.parametrize("error", [RecordRejectedError("no"), ValueError("no"), OverflowError("no"), KeyError("no")])
def test_one_that_is_refused_is_set_aside_and_all_others_are_acted_on(error: Exception) -> None:
    """It is looked for by halves, in the order in which they came."""
    acted, letters = act_together(1000, {300}, error)
    assert [number for numbers in acted for number in numbers] == [*range(300), *range(301, 1000)]
    assert len(acted) <= 10
    assert letters == [b"300"]


@pytest.mark.parametrize("error", [OSError("disk"), MemoryError(), RuntimeError("no thread"), asyncio.CancelledError()])
def test_what_is_no_fault_of_the_data_is_raised(error: Any) -> None:
    """A good record must not be set aside because the machine is in trouble."""
    with pytest.raises(type(error)):
        act_together(3, {1}, error)


def test_what_can_be_read_of_a_refused_delivery_is_acted_on() -> None:
    """The delivery is set aside all the same."""
    publisher = Publisher()
    acted: list[int] = []

    async def act(numbers: Sequence[int]) -> None:
        acted.extend(numbers)

    def refuse(delivery: Delivery) -> Sequence[int]:
        raise MessageRefusedError(f"{delivery.tag} is strange")

    acting = Acting(cast(Connection, publisher), Names("limetask"))
    asyncio.run(acting.together(deliveries(2), refuse, act, number_in))
    assert acted == [0, 1]
    assert [(letter.headers or {})["reason"] for letter in publisher.letters] == ["0 is strange", "1 is strange"]
