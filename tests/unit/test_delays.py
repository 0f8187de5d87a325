"""Delays: how long a message is held, and which way its routing key takes it."""

from __future__ import annotations

import asyncio
import math
import re

import pytest

from limetask.amqp import Connection
from limetask.delays import MAX_DELAY_SECONDS, Delays, routing_key, whole_seconds
from limetask.message import Envelope
from limetask.settings import MAX_NAMESPACE_BYTES, Settings
from limetask.topology import DELAY_LEVELS, QOS_CATEGORIES, Names, delay_topology, topology

NAMES = Names("shop.eu")
QUEUE = NAMES.task_queue("default")


@pytest.mark.parametrize(
    ("seconds", "held"),
    [
        (0, 1),
        (-5, 1),
        (-math.inf, 1),
        (0.001, 1),
        (1, 1),
        (1.001, 2),
        (2.0, 2),
        (59.5, 60),
        (MAX_DELAY_SECONDS - 0.5, MAX_DELAY_SECONDS),
        (MAX_DELAY_SECONDS, MAX_DELAY_SECONDS),
    ],
)
def test_a_delay_is_rounded_up(seconds: float, held: int) -> None:
    """No message comes early: parts of a second count as one, and nothing is less than one."""
    assert whole_seconds(seconds) == held
    assert type(whole_seconds(seconds)) is int


TOO_LONG = [MAX_DELAY_SECONDS + 1, MAX_DELAY_SECONDS + 0.1, 1e300, math.inf, math.nan]


@pytest.mark.parametrize("seconds", TOO_LONG)
def test_a_delay_that_the_levels_cannot_hold_is_refused(seconds: float) -> None:
    """More than all levels together, and what is no number, is a ValueError that tells the limit."""
    with pytest.raises(ValueError, match="16777215 s"):
        whole_seconds(seconds)


@pytest.mark.parametrize("seconds", TOO_LONG)
def test_it_is_refused_before_anything_is_published(seconds: float) -> None:
    """The caller is told at once, whether or not there is a broker."""

    async def main() -> None:
        delays = Delays(Connection(Settings(), "test"), NAMES)
        with pytest.raises(ValueError, match="16777215 s"):
            await delays.publish_until_confirmed(seconds, QUEUE, Envelope(b"", None))
        with pytest.raises(ValueError, match="16777215 s"):
            await delays.declare(seconds)

    asyncio.run(main())


def test_the_key_is_the_bits_and_the_queue() -> None:
    """The bits come as words, the highest level's first, then the queue's name."""
    assert routing_key(5, "limetask.tasks.default") == "0." * 21 + "1.0.1.limetask.tasks.default"


def test_the_longest_names_fit_into_a_key() -> None:
    """With the longest namespace a task can be delayed; a queue's name that does not fit is refused."""
    names = Names("x" * MAX_NAMESPACE_BYTES)
    assert max(len(routing_key(1, names.task_queue(qos))) for qos in QOS_CATEGORIES) <= 255
    assert len(routing_key(1, "q" * 207)) == 255
    for name in ("q" * 208, "é" * 104):
        with pytest.raises(ValueError, match="too long"):
            routing_key(1, name)


TOPOLOGY = delay_topology(NAMES, DELAY_LEVELS)
BINDINGS = (*topology(NAMES).bindings, *TOPOLOGY.bindings)
TO_QUEUES = [(binding.exchange, binding.routing_key, binding.queue) for binding in BINDINGS]
TO_EXCHANGES = [(binding.exchange, binding.routing_key, binding.destination) for binding in TOPOLOGY.exchange_bindings]
QUEUES = {queue.name: queue for queue in TOPOLOGY.queues}


def fits(pattern: str, key: str) -> bool:
    """Whether a topic exchange takes a key for a pattern."""
    expression = re.escape(pattern).replace(r"\#\.", r"([^.]*\.)*").replace(r"\.\#", r"(\.[^.]*)*")
    return re.fullmatch(expression.replace(r"\*", "[^.]*"), key) is not None


def routed(exchange: str, key: str) -> list[str]:
    """All queues into which the exchange puts a message, by way of other exchanges too."""
    queues = [queue for source, pattern, queue in TO_QUEUES if source == exchange and fits(pattern, key)]
    for source, pattern, destination in TO_EXCHANGES:
        if source == exchange and fits(pattern, key):
            queues += routed(destination, key)
    return queues


@pytest.mark.parametrize(
    "seconds", [1, 2, 3, 4, 5, 10, 60, 3600, 86_400, 0b10101010, 2**23, 2**23 - 1, 2**23 + 1, MAX_DELAY_SECONDS]
)
@pytest.mark.parametrize("qos", QOS_CATEGORIES)
def test_the_levels_on_the_way_hold_a_message_for_its_delay(seconds: int, qos: str) -> None:
    """From the exchange of its highest bit it falls through one queue after the other, in all for its seconds."""
    queue = NAMES.task_queue(qos)
    key = routing_key(seconds, queue)
    [place] = routed(NAMES.delay(seconds.bit_length() - 1), key)
    held = 0
    while place in QUEUES:
        arguments = QUEUES[place].arguments
        held += int(arguments["x-message-ttl"])
        [place] = routed(str(arguments["x-dead-letter-exchange"]), key)
    assert (place, held) == (queue, 1000 * seconds)


def test_a_message_for_no_bound_queue_fits_nothing() -> None:
    """It is for the alternate exchange: no queue of tasks gets another's messages."""
    assert routed(NAMES.delayed_exchange, routing_key(1, "shop.eu.tasks.other")) == []
    assert routed(NAMES.delayed_exchange, routing_key(1, "shop.eu.stock")) == []
