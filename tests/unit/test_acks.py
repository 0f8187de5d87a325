"""Acks that go out together: never one for a delivery that is still being worked on."""

import asyncio
import random

import pytest

from limetask.amqp.acks import Acks

Sent = list[tuple[int, bool]]


def sent_after(delivered: int, acked: list[int], given_back: tuple[int, ...] = (), *, multiple: bool = False) -> Sent:
    """What is sent for these acks of one turn, when so many messages were delivered before."""
    sent: Sent = []

    async def run() -> None:
        acks = Acks(lambda tag, multiple: sent.append((tag, multiple)))
        for tag in range(1, delivered + 1):
            acks.delivered(tag)
        for tag in given_back:
            acks.given_back(tag)
        for tag in acked:
            acks.ack(tag, multiple=multiple)
        assert sent == []
        await asyncio.sleep(0)

    asyncio.run(run())
    return sent


@pytest.mark.parametrize(
    ("acked", "sent"),
    [
        ([1], [(1, False)]),
        ([1, 2, 3], [(3, True)]),
        ([3, 1, 2], [(3, True)]),
        ([2], [(2, False)]),
        ([2, 3], [(2, False), (3, False)]),
        ([1, 2, 4], [(2, True), (4, False)]),
        ([1, 2, 3, 4, 5], [(5, True)]),
    ],
)
def test_neighbours_without_unacked_ones_before_them_are_acked_together(acked: list[int], sent: Sent) -> None:
    """One ack stands for all before it, so there must be no other."""
    assert sent_after(5, acked) == sent


def test_what_was_given_back_stands_in_nobodys_way() -> None:
    """It is not ours any more, so an ack for all before another does not touch it."""
    assert sent_after(4, [1, 3], (2,)) == [(3, True)]


def test_one_for_all_before_it_is_sent_as_such() -> None:
    """The recorder acks whole batches."""
    assert sent_after(5, [4], multiple=True) == [(4, True)]


def test_without_acks_nothing_is_sent() -> None:
    """As when a connection is closed in which nothing has happened."""
    sent: Sent = []
    Acks(lambda tag, multiple: sent.append((tag, multiple))).flush()
    assert sent == []


def test_the_broker_sees_each_ack_once() -> None:
    """Random acks in random turns: what the broker takes for acked is what was acked, at each moment."""
    chance = random.Random(1)
    unacked: set[int] = set()

    def take(tag: int, multiple: bool) -> None:
        assert tag in unacked, "acked twice, or never delivered"
        unacked.difference_update([other for other in unacked if other <= tag] if multiple else [tag])

    async def run() -> None:
        acks = Acks(take)
        here: list[int] = []
        tag = 0
        for _ in range(500):
            for _ in range(chance.randrange(5)):
                tag += 1
                acks.delivered(tag)
                unacked.add(tag)
                here.append(tag)
            for _ in range(chance.randrange(1 + len(here))):
                acks.ack(here.pop(chance.randrange(min(len(here), 4))), multiple=False)
            await asyncio.sleep(0)
            assert unacked == set(here)

    asyncio.run(run())
