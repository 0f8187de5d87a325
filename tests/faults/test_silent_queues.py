"""A queue whose leader does not answer: the broker then counts no messages and no consumers in it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from limetask import Settings, configure, dead_letters
from limetask.dead_letters import list_dead_letters
from limetask.errors import BrokerError
from limetask.handler_registry import find_handlers, prune_handlers
from limetask.topology import Names, handler_topology
from tests.broker import channel_to, declare_namespace
from tests.faults.nodes import Node
from tests.waiting import eventually

NOTIFY = "shop.events.notify"

_CALL_LEADER = '{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"%s">>)), sys:%s(element(1, %s)).'


@contextmanager
def silent(broker: Node, queue: str) -> Iterator[None]:
    """Have the leader of a queue stand still."""
    broker.ctl("eval", _CALL_LEADER % (queue, "suspend", "amqqueue:get_pid(Q)"))
    try:
        yield
    finally:
        broker.ctl("eval", _CALL_LEADER % (queue, "resume", "amqqueue:get_pid(Q)"))


@pytest.fixture
def settings(own_broker_settings: Settings) -> Settings:
    """A namespace on a broker of this test's own."""
    configure(own_broker_settings)
    declare_namespace(own_broker_settings.broker_url, own_broker_settings.namespace)
    return own_broker_settings


@pytest.fixture
def consumed(settings: Settings) -> Iterator[tuple[str, Any]]:
    """A handler's queue with three events and a consumer that has one of them."""
    wanted = handler_topology(Names(settings.namespace), NOTIFY, ["core.task.#"]).queues[0]
    with channel_to(settings.broker_url) as channel:
        channel.queue_declare(wanted.name, durable=True, arguments=dict(wanted.arguments))
        for _ in range(3):
            channel.basic_publish("", wanted.name, b"{}")
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume(wanted.name, lambda *_: None)
        eventually(lambda: find_handlers([NOTIFY])[0].consumers == 1)
        yield wanted.name, channel


def test_prune_leaves_a_queue_alone_that_does_not_answer(
    own_broker: Node, settings: Settings, consumed: tuple[str, Any]
) -> None:
    """It shows zeros for longer than it is looked at, and is in doubt: nothing is deleted."""
    queue, channel = consumed
    with silent(own_broker, queue):
        [found] = find_handlers([NOTIFY])
        assert (found.waiting, found.consumers) == (0, 0)
        with pytest.raises(BrokerError, match=f"{NOTIFY}: it is in doubt whether it is in use"):
            prune_handlers([NOTIFY], look_for=0.5)
    eventually(lambda: channel.queue_declare(queue, passive=True).method.consumer_count == 1)
    assert channel.queue_declare(queue, passive=True).method.message_count == 2


def test_prune_sees_the_consumers_of_a_queue_that_answers_again(
    own_broker: Node, settings: Settings, consumed: tuple[str, Any]
) -> None:
    """It looks for long enough to see them."""
    queue, _ = consumed
    pruned = []
    with silent(own_broker, queue):
        pruning = threading.Thread(target=lambda: pruned.append(prune_handlers([NOTIFY], look_for=100.0)))
        pruning.start()
    pruning.join(120)
    assert [one.in_use for one in pruned] == [(NOTIFY,)]


def test_dead_letters_that_cannot_be_seen_are_not_taken_for_none(own_broker: Node, settings: Settings) -> None:
    """Neither listing nor purging says that there is nothing; later all are there."""
    configure(replace(settings, send_timeout=1.0))
    names = Names(settings.namespace)
    with channel_to(settings.broker_url) as channel:
        channel.basic_publish(names.dead_exchange, "", b"x")
    eventually(lambda: len(list_dead_letters()) == 1)
    with silent(own_broker, names.dead_queue):
        for call in (list_dead_letters, lambda: dead_letters.purge(dead_letters.ALL)):
            with pytest.raises(BrokerError, match="does not answer, so it is not known what is in it"):
                call()
    eventually(lambda: len(list_dead_letters()) == 1)
