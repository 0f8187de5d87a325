"""The recorder and the bindings of handlers' queues, on a real broker; the time is the test's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest

from limetask import Settings
from limetask.amqp import Connection
from limetask.errors import BrokerRefusedError, ConnectionLostError
from limetask.message import HandlerBindings, HandlerGone
from limetask.store import Store
from limetask.topology import Names, handler_topology
from limetask_worker.handler_queues import KEEP_SECONDS, HandlerQueues
from limetask_worker.patient_store import PatientStore
from tests.broker import channel_to, declare_namespace, queue_length, take_all

NOTIFY = "shop.events.notify"
MINUTE = 60.0


class Recording:
    """The part of a recorder that hears of handlers, and minutes that pass when the test says so."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.names = Names(settings.namespace)
        self.now = 1000.0
        self.connection = Connection(settings, "test")
        self._store = PatientStore(settings.resolved_store_url)
        self.queues = self.started_anew()

    def started_anew(self) -> HandlerQueues:
        return HandlerQueues(self._store, self.connection, self.names, clock=lambda: self.now)

    async def open(self) -> None:
        await self._store.open()
        await self.connection.ready(10)

    async def close(self) -> None:
        await self.connection.close()
        self._store.close()

    async def worker_binds(self, *keys: str) -> None:
        await self.connection.declare(handler_topology(self.names, NOTIFY, keys))

    async def hear(self, *keys: str) -> None:
        """Hear of a worker whose code has these patterns."""
        await self.queues.note([HandlerBindings(NOTIFY, keys, datetime.now(UTC))])

    async def minutes(self, count: int, *declared: tuple[str, ...]) -> None:
        """Let minutes pass, in each of which workers declare these patterns."""
        for _ in range(count):
            self.now += MINUTE
            for keys in declared:
                await self.hear(*keys)
            await self.queues.tend()

    async def bound(self) -> set[str]:
        """Return which of a, b and c bring an event into the queue; it is empty before and after."""
        queue = self.names.handler_queue(NOTIFY)
        return await asyncio.to_thread(arriving, self.settings.broker_url, self.names, queue)

    def recorded(self) -> tuple[str, ...]:
        with closing(Store(self.settings.resolved_store_url)) as store:
            return next((handler.bindings for handler in store.handlers()), ())


def arriving(broker_url: str, names: Names, queue: str) -> set[str]:
    with channel_to(broker_url) as channel:
        for key in ("a", "b", "c"):
            channel.basic_publish(names.events_exchange, f"{key}.event", key.encode())
    return (
        {letter.body.decode() for letter in take_all(broker_url, queue, waiting)}
        if (waiting := queue_length(broker_url, queue))
        else set()
    )


@pytest.fixture
def run(settings: Settings) -> Iterator[Callable[[Callable[[Recording], Awaitable[None]]], None]]:
    """Run a test with an open Recording; the queue is deleted afterwards."""
    declare_namespace(settings.broker_url, settings.namespace)

    def run_it(test: Callable[[Recording], Awaitable[None]]) -> None:
        async def main() -> None:
            recording = Recording(settings)
            await recording.open()
            try:
                await test(recording)
            finally:
                await recording.close()

        asyncio.run(asyncio.wait_for(main(), 60))

    yield run_it
    with channel_to(settings.broker_url) as channel:
        channel.queue_delete(Names(settings.namespace).handler_queue(NOTIFY))


Run = Callable[[Callable[[Recording], Awaitable[None]]], None]


def test_a_pattern_that_is_in_the_code_no_more_is_unbound(run: Run) -> None:
    """It goes when no worker has declared it for five minutes, and not before; what is declared stays."""

    async def test(recording: Recording) -> None:
        await recording.worker_binds("a.#", "b.#")
        await recording.hear("a.#", "b.#")
        await recording.worker_binds("b.#", "c.#")
        await recording.minutes(5, ("b.#", "c.#"))
        assert await recording.bound() == {"a", "b", "c"}
        await recording.minutes(1, ("b.#", "c.#"))
        assert await recording.bound() == {"b", "c"}
        assert recording.recorded() == ("b.#", "c.#")

    run(test)


@pytest.mark.parametrize("order", [1, -1], ids=["old code first", "new code first"])
def test_two_versions_of_the_code_keep_their_patterns(run: Run, order: int) -> None:
    """As long as workers of both run, whichever was started last, nothing is unbound; then the old ones go."""

    async def test(recording: Recording) -> None:
        old, new = ("a.#", "b.#"), ("b.#", "c.#")
        for version in (old, new)[::order]:
            await recording.worker_binds(*version)
            await recording.hear(*version)
        await recording.minutes(20, *(old, new)[::order])
        assert await recording.bound() == {"a", "b", "c"}
        await recording.minutes(6, new)
        assert await recording.bound() == {"b", "c"}

    run(test)


def test_without_any_worker_nothing_is_unbound(run: Run) -> None:
    """While nobody declares a handler it keeps all its bindings; code that comes later decides."""

    async def test(recording: Recording) -> None:
        await recording.worker_binds("a.#", "b.#")
        await recording.hear("a.#", "b.#")
        await recording.minutes(600)
        assert await recording.bound() == {"a", "b"}
        await recording.minutes(1, ("b.#",))
        assert await recording.bound() == {"a", "b"}
        await recording.minutes(6, ("b.#",))
        assert await recording.bound() == {"b"}

    run(test)


def test_a_recorder_that_heard_nothing_waits_anew(run: Run) -> None:
    """After a pause in which it was deaf, the first to be heard does not decide for those that follow."""

    async def test(recording: Recording) -> None:
        old, new = ("a.#", "b.#"), ("b.#", "c.#")
        await recording.worker_binds("a.#", "b.#", "c.#")
        await recording.minutes(3, old, new)
        recording.now += 2 * KEEP_SECONDS
        await recording.hear(*old)
        await recording.queues.tend()
        assert await recording.bound() == {"a", "b", "c"}
        await recording.hear(*new)
        await recording.queues.tend()
        assert await recording.bound() == {"a", "b", "c"}

    run(test)


def test_another_recorder_goes_on_from_what_is_recorded(run: Run) -> None:
    """It knows the old pattern from the store, and gives it the whole time again."""

    async def test(recording: Recording) -> None:
        await recording.worker_binds("a.#", "b.#")
        await recording.hear("a.#", "b.#")
        recording.queues = recording.started_anew()
        await recording.minutes(6, ("b.#",))
        assert await recording.bound() == {"a", "b"}
        await recording.minutes(1, ("b.#",))
        assert await recording.bound() == {"b"}

    run(test)


def test_what_is_declared_while_it_is_unbound_is_bound_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that binds the old pattern in that very moment gets its events all the same."""

    async def test(recording: Recording) -> None:
        await recording.worker_binds("a.#", "b.#")
        await recording.hear("a.#", "b.#")
        unbind = recording.connection.unbind

        async def unbind_meanwhile(bindings: Any) -> None:
            await recording.hear("a.#")
            await unbind(bindings)

        monkeypatch.setattr(recording.connection, "unbind", unbind_meanwhile)
        await recording.minutes(6, ("b.#",))
        await recording.queues.tend()
        assert await recording.bound() == {"a", "b"}
        assert recording.recorded() == ("a.#", "b.#")

    run(test)


def test_what_was_unbound_is_bound_again_when_it_is_declared(run: Run) -> None:
    """Code that comes back, after its worker had bound it and the recorder unbound it, is bound at its news."""

    async def test(recording: Recording) -> None:
        await recording.worker_binds("a.#", "b.#")
        await recording.hear("a.#", "b.#")
        await recording.minutes(6, ("b.#",))
        assert await recording.bound() == {"b"}
        await recording.minutes(1, ("b.#",), ("a.#", "b.#"))
        assert await recording.bound() == {"a", "b"}

    run(test)


@pytest.mark.parametrize("error", [BrokerRefusedError("access refused"), ConnectionLostError("lost")], ids=repr)
def test_a_failed_unbinding_is_repeated(
    run: Run, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It stays recorded until the broker has done it. A refusal is told once, with what is needed."""

    async def test(recording: Recording) -> None:
        await recording.worker_binds("a.#", "b.#")
        await recording.hear("a.#", "b.#")

        async def fail(_bindings: Any) -> None:
            raise error

        with monkeypatch.context() as patched:
            patched.setattr(recording.connection, "unbind", fail)
            await recording.minutes(9, ("b.#",))
        assert recording.recorded() == ("a.#", "b.#")
        await recording.minutes(2, ("b.#",))
        assert await recording.bound() == {"b"}
        assert recording.recorded() == ("b.#",)

    with caplog.at_level(logging.ERROR, "limetask_worker"):
        run(test)
    told = [record.getMessage() for record in caplog.records if "permissions to write" in record.getMessage()]
    assert len(told) == isinstance(error, BrokerRefusedError)


def test_a_handler_that_is_gone_has_no_bindings_left(run: Run) -> None:
    """After the news of its deleted queue nothing is known of it, and nothing is tried on the broker."""

    async def test(recording: Recording) -> None:
        await recording.worker_binds("a.#")
        await recording.hear("a.#")
        await recording.queues.note_gone(HandlerGone(NOTIFY, datetime.now(UTC)))
        assert recording.recorded() == ()
        await recording.minutes(1)

    run(test)
