"""A pattern fits exactly what a real broker routes by its binding."""

from __future__ import annotations

import json

from limetask import EventPattern, Settings, on_failure, on_success
from limetask.topology import Names
from tests.broker import channel_to, declare_namespace

PATTERNS = [
    *(EventPattern(binding) for binding in ("#", "*", "a", "a.b", "a.*", "*.b", "a.#", "#.b", "a.#.b", "a.*.#")),
    *(EventPattern(binding) for binding in ("*.#.*", "#.*", "#.#", "#.a.#", "*.*", "a.#.#.b", "#.b.#.a", "*.a.*")),
    *(EventPattern(binding) for binding in ("a+.b(c)", "a.[b]", "^a.b$", "a.b\\d", "größe.*", "日本.#", "A.B")),
    *(EventPattern(binding) for binding in ("core.task.#.failure.v1", "core.task.*.*.failure.v1", "core.#")),
    on_failure(),
    on_success(),
    on_failure("pkg.tasks.add"),
    on_success("pkg.tasks.add"),
    EventPattern("x" * 255),
    EventPattern(".".join(["a"] * 128)),
    EventPattern("#." + ".".join(["a"] * 120)),
]
KEYS = [
    *("", "a", "b", "a.b", "b.a", "a.b.a", "a.a.b", "b.b", "a.c.b", "a.c.c.b", "b.a.b", "c.a.c", "a.b.c.d.e"),
    *(".", "..", "a.", ".a", "a..b", ".b", "a.*", "a.#", "#", "*", "a b", "a.b\n"),
    *("a+.b(c)", "aa.bc", "a.[b]", "^a.b$", "a.b\\d", "a.b1", "größe.x", "grosse.x", "日本", "日本.x.y", "A.B", "a.B"),
    "core.task.pkg.tasks.add.failure.v1",
    "core.task.pkg.tasks.add.success.v1",
    "core.task.pkg.add.failure.v1",
    "core.task.pkg.tasks.add.more.failure.v1",
    "core.task.failure.v1",
    "core.task",
    "core",
    "x" * 255,
    "x" * 254,
    ".".join(["a"] * 128),
    ".".join(["a"] * 127),
]


def test_the_broker_routes_what_a_pattern_fits(settings: Settings) -> None:
    """For every pair of a pattern and a key, the broker delivers if and only if `fits` says so."""
    declare_namespace(settings.broker_url, settings.namespace)
    exchange = Names(settings.namespace).events_exchange
    with channel_to(settings.broker_url) as channel:
        queues = [channel.queue_declare("", exclusive=True).method.queue for _ in PATTERNS]
        for queue, pattern in zip(queues, PATTERNS, strict=True):
            channel.queue_bind(queue, exchange, pattern.binding)
        for key in KEYS:
            channel.basic_publish(exchange, key, json.dumps(key).encode())
        for queue, pattern in zip(queues, PATTERNS, strict=True):
            routed = [json.loads(channel.basic_get(queue, auto_ack=True)[2]) for _ in range(length(channel, queue))]
            assert routed == [key for key in KEYS if EventPattern(pattern.binding).fits(key, None)], pattern


def length(channel: object, queue: str) -> int:
    """How many messages wait in a queue of this connection."""
    count: int = channel.queue_declare(queue, passive=True).method.message_count  # type: ignore[attr-defined]
    return count
