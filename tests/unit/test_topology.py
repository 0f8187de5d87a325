"""The topology: what is declared on the broker, and under which names."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest

from limetask.delays import routing_key
from limetask.handlers import MAX_HANDLER_NAME_BYTES
from limetask.patterns import EventPattern
from limetask.settings import MAX_NAMESPACE_BYTES
from limetask.topology import (
    DELAY_LEVELS,
    QOS_CATEGORIES,
    Binding,
    ExchangeBinding,
    Names,
    QoS,
    Queue,
    Topology,
    delay_topology,
    delayed_binding,
    handler_topology,
    topology,
)

NAMES = Names("shop.eu")


def queue(name: str, of: Topology | None = None) -> Queue:
    return next(queue for queue in (of or topology(NAMES)).queues if queue.name == name)


QUEUES = [queue.name for queue in topology(NAMES).queues]
DELAYS = delay_topology(NAMES, DELAY_LEVELS)


def test_there_is_a_queue_for_each_quality_of_service() -> None:
    """There are three categories, most urgent first, each with a queue that the tasks exchange leads to by its name."""
    assert get_args(QoS) == QOS_CATEGORIES == ("asap", "default", "background")
    bindings = {(binding.exchange, binding.routing_key, binding.queue) for binding in topology(NAMES).bindings}
    for qos in QOS_CATEGORIES:
        name = f"shop.eu.tasks.{qos}"
        assert NAMES.task_queue(qos) == name
        assert name in QUEUES
        assert ("shop.eu.tasks", name, name) in bindings


@pytest.mark.parametrize("name", QUEUES)
def test_every_queue_is_a_quorum_queue_with_a_limit(name: str) -> None:
    """Every queue is replicated and says how often a message may come back: the broker's default changes by version."""
    arguments = queue(name).arguments
    assert arguments["x-queue-type"] == "quorum"
    limit = arguments["x-delivery-limit"]
    assert type(limit) is int
    assert 0 < limit < 2**31


@pytest.mark.parametrize("name", QUEUES)
def test_dead_lettering_loses_nothing(name: str) -> None:
    """A queue that dead-letters does it at least once, for which the broker needs all three arguments."""
    arguments = queue(name).arguments
    parts = ("x-dead-letter-exchange", "x-dead-letter-strategy", "x-overflow")
    if name == NAMES.dead_queue:
        assert not {"x-dead-letter-exchange", "x-dead-letter-strategy"} & set(arguments)
    else:
        assert [arguments.get(part) for part in parts] == ["shop.eu.dead", "at-least-once", "reject-publish"]


@pytest.mark.parametrize("name", [NAMES.results_queue, NAMES.dead_queue])
def test_a_full_queue_drops_nothing(name: str) -> None:
    """What might grow without a worker's doing is bounded, and refuses what is more instead of dropping it."""
    arguments = queue(name).arguments
    assert arguments["x-overflow"] == "reject-publish"
    assert isinstance(arguments["x-max-length-bytes"], int)


def test_dead_letters_are_kept() -> None:
    """Whatever is dead-lettered gets into the queue of dead letters, whatever its routing key."""
    declared = topology(NAMES)
    kinds = {exchange.name: exchange.kind for exchange in declared.exchanges}
    assert kinds[NAMES.dead_exchange] == "fanout"
    assert NAMES.dead_queue in {
        binding.queue for binding in declared.bindings if binding.exchange == NAMES.dead_exchange
    }
    assert int(queue(NAMES.dead_queue).arguments["x-delivery-limit"]) > 1_000_000


def test_one_recorder_at_a_time_gets_the_results() -> None:
    """The results queue has a single active consumer; no other queue has."""
    assert queue("shop.eu.results").arguments["x-single-active-consumer"] is True
    assert [name for name in QUEUES if "x-single-active-consumer" in queue(name).arguments] == ["shop.eu.results"]


def test_the_results_queue_gets_every_end_of_a_task() -> None:
    """All ends go to the results queue and to the exchange of events, each by two ways that take all of them."""
    declared = topology(NAMES)
    kinds = {exchange.name: exchange.kind for exchange in declared.exchanges}
    bindings = [binding for binding in declared.bindings if binding.queue == "shop.eu.results"]
    assert [(binding.exchange, binding.routing_key) for binding in bindings] == [
        ("shop.eu.completions", ""),
        ("shop.eu.completions", "again"),
    ]
    assert list(declared.exchange_bindings) == [
        ExchangeBinding("shop.eu.events", "shop.eu.completions", ""),
        ExchangeBinding("shop.eu.events", "shop.eu.completions", "again"),
    ]
    assert (kinds["shop.eu.completions"], kinds["shop.eu.events"]) == ("fanout", "topic")


@pytest.mark.parametrize("level", range(DELAY_LEVELS))
def test_a_level_of_delays_holds_for_a_power_of_two(level: int) -> None:
    """Level n keeps for 2**n seconds what its exchange gives it, then hands it to the next lower one."""
    name = NAMES.delay(level)
    assert name == f"shop.eu.delay.{level}"
    assert queue(name, DELAYS).arguments == {
        "x-queue-type": "quorum",
        "x-delivery-limit": 1_000_000_000,
        "x-message-ttl": 1000 * 2**level,
        "x-dead-letter-exchange": f"shop.eu.delay.{level - 1}" if level else "shop.eu.delayed",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def test_only_the_levels_that_are_needed_are_declared() -> None:
    """Three levels are three queues; the exchange below them comes with any number."""
    three = delay_topology(NAMES, 3)
    assert [queue.name for queue in three.queues] == [NAMES.delay(level) for level in range(3)]
    assert {exchange.name for exchange in three.exchanges} == set(map(NAMES.delay, range(3)))
    assert all(exchange.kind == "topic" for exchange in three.exchanges)
    assert three.bindings == DELAYS.bindings[: len(three.bindings)]
    assert len(DELAYS.queues) == 24


def test_what_was_delayed_goes_to_its_queue_or_becomes_a_dead_letter() -> None:
    """The exchange of delayed messages leads to each queue of tasks, and what fits none to the dead letters."""
    [delayed] = [exchange for exchange in topology(NAMES).exchanges if exchange.name == "shop.eu.delayed"]
    assert (delayed.kind, delayed.arguments) == ("topic", {"alternate-exchange": "shop.eu.dead"})
    bound = [binding for binding in topology(NAMES).bindings if binding.exchange == "shop.eu.delayed"]
    assert bound == [delayed_binding(NAMES, NAMES.task_queue(qos)) for qos in QOS_CATEGORIES]
    assert delayed_binding(NAMES, "shop.eu.stock") == Binding("shop.eu.stock", "shop.eu.delayed", "#.shop.eu.stock")


def test_bindings_of_delays_join_what_is_declared() -> None:
    """No binding of the levels is to a queue or an exchange that does not exist."""
    exchanges = {exchange.name for exchange in DELAYS.exchanges}
    queues = {queue.name for queue in DELAYS.queues}
    assert {binding.exchange for binding in DELAYS.bindings} == exchanges
    assert {binding.exchange for binding in DELAYS.exchange_bindings} == exchanges
    assert {binding.destination for binding in DELAYS.exchange_bindings} < exchanges | {"shop.eu.delayed"}
    assert {binding.queue for binding in DELAYS.bindings} == queues


@pytest.mark.parametrize("make", [topology, lambda names: delay_topology(names, DELAY_LEVELS)], ids=["all", "delays"])
def test_every_name_begins_with_the_namespace(make: Callable[[Names], Topology]) -> None:
    """Two namespaces on one broker share nothing."""
    for namespace in ("shop.eu", "other"):
        declared = make(Names(namespace))
        names = [exchange.name for exchange in declared.exchanges] + [queue.name for queue in declared.queues]
        names += [str(value) for queue in declared.queues for value in queue.arguments.values() if "." in str(value)]
        assert names
        assert all(name.startswith(f"{namespace}.") for name in names)


def test_bindings_join_what_is_declared() -> None:
    """No binding is to a queue or an exchange that is not declared."""
    declared = topology(NAMES)
    assert {binding.exchange for binding in declared.bindings} <= {exchange.name for exchange in declared.exchanges}
    assert {binding.queue for binding in declared.bindings} == set(QUEUES)


def test_the_topology_is_the_same_for_everybody() -> None:
    """Two processes declare equal things: the broker refuses a second declaration that differs."""
    assert topology(Names("shop")) == topology(Names("shop"))


def test_names_fit_into_the_protocol() -> None:
    """With the longest namespace every name is still within AMQP's 255 bytes."""
    longest = Names("x" * MAX_NAMESPACE_BYTES)
    declared = topology(longest)
    names = [exchange.name for exchange in declared.exchanges] + [queue.name for queue in declared.queues]
    assert max(map(len, [*names, longest.reply_key("f" * 32)])) <= 255


HANDLER = handler_topology(NAMES, "pkg.notify", {"shop.#", "core.task.#.failure.v1"})


def test_a_handler_has_a_queue_with_its_bindings() -> None:
    """A shared handler's queue is bound to the events that it wants, in one order, and to what is delayed for it."""
    name = "shop.eu.handlers.pkg.notify"
    assert NAMES.handler_queue("pkg.notify") == name
    assert [queue.name for queue in HANDLER.queues] == [name]
    assert HANDLER.bindings == (
        Binding(name, "shop.eu.events", "core.task.#.failure.v1"),
        Binding(name, "shop.eu.events", "shop.#"),
        Binding(name, "shop.eu.delayed", "#.shop.eu.handlers.pkg.notify"),
    )
    assert (HANDLER.exchanges, HANDLER.exchange_bindings) == ((), ())


def test_a_handlers_queue_is_replicated_and_bounded() -> None:
    """A handler that nobody runs any more holds up nobody: its oldest events go to the dead letters."""
    assert HANDLER.queues[0].arguments == {
        "x-queue-type": "quorum",
        "x-delivery-limit": 100,
        "x-overflow": "drop-head",
        "x-max-length-bytes": 1024**3,
        "x-dead-letter-exchange": "shop.eu.dead",
    }


def test_a_handler_is_declared_alike_by_everybody() -> None:
    """Whatever order the patterns come in, two workers declare equal things."""
    keys = ["c.#", "a.b", "b.*"]
    assert handler_topology(NAMES, "pkg.notify", keys) == handler_topology(NAMES, "pkg.notify", reversed(keys))


def test_only_its_own_delayed_events_come_to_a_handler() -> None:
    """What is delayed for one queue fits the binding of no other: not of tasks, nor of a handler with a longer name."""
    handlers = ["pkg.notify", "notify.pkg", "my.pkg.notify", "pkg.notify.more", "tasks.default", "pkg.tasks.default"]
    declared = [topology(NAMES), *(handler_topology(NAMES, name, []) for name in handlers)]
    bindings = [binding for one in declared for binding in one.bindings if binding.exchange == NAMES.delayed_exchange]
    assert len(bindings) == len(QOS_CATEGORIES) + len(handlers)
    for name in handlers:
        key = routing_key(5, NAMES.handler_queue(name))
        fitting = [binding.queue for binding in bindings if EventPattern(binding.routing_key).fits(key, None)]
        assert fitting == [NAMES.handler_queue(name)]


def test_the_longest_handler_fits_into_the_protocol() -> None:
    """The longest namespace and handler name still leave room for a binding and for the key of a delayed event."""
    longest = Names("x" * MAX_NAMESPACE_BYTES)
    declared = handler_topology(longest, "y." + "z" * (MAX_HANDLER_NAME_BYTES - 2), [])
    assert max(len(binding.routing_key) for binding in declared.bindings) <= 255
    assert len(routing_key(2**DELAY_LEVELS - 1, declared.queues[0].name)) <= 255


@pytest.mark.parametrize("token", ["0123456789abcdef", "a", "ABC123"])
def test_a_reply_key_is_recognised(token: str) -> None:
    """A key that `reply_key` has made is one."""
    assert NAMES.reply_key(token) == f"shop.eu.reply.{token}"
    assert NAMES.is_reply_key(NAMES.reply_key(token))


@pytest.mark.parametrize(
    "key",
    [
        "",
        "shop.eu.reply.",
        "shop.eu.reply",
        "shop.eu.reply.a.b",
        "shop.eu.reply.*",
        "shop.eu.reply.#",
        "shop.eu.reply.a b",
        "shop.eu.reply.a\n",
        "other.reply.abc",
        "xshop.eu.reply.abc",
        "core.task.pkg.add.success.v1",
        "shop.eu.tasks.default",
        "amq.rabbitmq.reply-to",
        "shop.eu.reply." + "a" * 255,
    ],
)
def test_another_key_is_no_reply_key(key: str) -> None:
    """A message cannot ask for a copy under any other key: not a task's event, not another namespace's reply."""
    assert not NAMES.is_reply_key(key)
