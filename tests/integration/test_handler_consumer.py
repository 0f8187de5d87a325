"""One handler and its queue: what a lost connection, a slow body or a limit makes of its events."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pika
import pytest

from limetask import Application, ConfigurationError, Event, Retry, Settings
from limetask.dead_letters import list_dead_letters
from limetask.events import encode_event
from limetask.handlers import HandlerDeclaration
from limetask.topology import Names
from limetask_worker.event_runner import EventRunner
from limetask_worker.limits import Limits
from limetask_worker.marks import Marks, open_memory
from tests.broker import channel_to, queue_length
from tests.proxy import Proxy, proxy_to
from tests.waiting import eventually

KEY = "test.event"


class Bodies:
    """A handler's function: it notes what it gets, and goes on when it may."""

    def __init__(self) -> None:
        self.begun: list[Any] = []
        self.ended: list[Any] = []
        self.seconds: dict[Any, float] = {}
        self.may_end = threading.Event()
        self.may_end.set()

    def handle(self, app: Application, event: Event) -> None:
        self.begun.append(event.body)
        time.sleep(self.seconds.get(event.body, 0.0))
        self.may_end.wait()
        self.ended.append(event.body)


@pytest.fixture
def bodies() -> Iterator[Bodies]:
    made = Bodies()
    yield made
    made.may_end.set()  # or its threads would keep this process


def declared(bodies: Bodies, **options: Any) -> HandlerDeclaration:
    def handle(app: Application, event: Event) -> None:
        bodies.handle(app, event)

    return HandlerDeclaration(handle, [KEY], name="test.handler", **({"retry": 0} | options))


class Running:
    """An event process in a thread."""

    def __init__(self, settings: Settings, handler: HandlerDeclaration, broker_url: str) -> None:
        """`broker_url` is the broker's own, whatever lies between it and the process."""
        self._settings = settings
        self._broker_url = broker_url
        self._limits = Limits(settings.consumer_timeout, None, None)
        self._handler = handler
        self._queue = Names(settings.namespace).handler_queue(handler.name)
        self._ready = threading.Event()
        self._stop: Callable[[], object]
        self._thread = threading.Thread(target=asyncio.run, args=(self._run(),))
        self._thread.start()
        assert self._ready.wait(20)

    @property
    def reason(self) -> str:
        """Why it makes room for another, and has ended; empty if it does not."""
        return self._limits.reason

    @property
    def waiting(self) -> int:
        """How many events are in the queue, and not here."""
        return queue_length(self._broker_url, self._queue)

    def stop(self) -> None:
        with contextlib.suppress(RuntimeError):  # it has ended already
            self._stop()
        self._thread.join(30)
        assert not self._thread.is_alive()

    async def _run(self) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._stop = lambda: loop.call_soon_threadsafe(stop.set)
        marks = Marks(open_memory())
        runner = EventRunner(self._settings, "test", [self._handler], Application, self._limits, marks)
        await runner.open()
        self._ready.set()
        await runner.run(stop, 10.0)
        await runner.close()


@pytest.fixture
def run(settings: Settings) -> Iterator[Callable[..., Running]]:
    """Run a handler, by default on the broker itself: `run(handler, settings)`."""
    running: list[Running] = []

    def start(handler: HandlerDeclaration, other: Settings = settings) -> Running:
        running.append(Running(other, handler, settings.broker_url))
        return running[-1]

    yield start
    for one in running:
        one.stop()
    with channel_to(settings.broker_url) as channel:
        for one in running:
            channel.queue_delete(one._queue)


@contextmanager
def behind_a_proxy(settings: Settings) -> Iterator[tuple[Proxy, Settings]]:
    with proxy_to(settings.broker_url) as (proxy, url):
        yield proxy, replace(settings, broker_url=url)


def publish(settings: Settings, *texts: str) -> None:
    with channel_to(settings.broker_url) as channel:
        for text in texts:
            _, envelope = encode_event("acme", KEY, text, None, 1000)
            properties = pika.BasicProperties(
                content_type=envelope.content_type, type=envelope.kind, message_id=envelope.message_id, delivery_mode=2
            )
            channel.basic_publish(Names(settings.namespace).events_exchange, KEY, envelope.body, properties)


def test_what_runs_when_the_connection_is_lost_is_not_begun_again(
    settings: Settings, bodies: Bodies, run: Callable[..., Running]
) -> None:
    """It comes again while it still runs, and is acked with its end; there is room for others beside it."""
    with behind_a_proxy(settings) as (proxy, through):
        running = run(declared(bodies, concurrency=4), through)
        bodies.may_end.clear()
        publish(settings, "first", "second")
        eventually(lambda: len(bodies.begun) == 2)
        proxy.cut()
        publish(settings, "third")  # it comes after what is delivered again
        eventually(lambda: "third" in bodies.begun)
        assert sorted(bodies.begun) == ["first", "second", "third"]
        bodies.may_end.set()
        eventually(lambda: len(bodies.ended) == 3)
        running.stop()
    eventually(lambda: running.waiting == 0)
    assert sorted(bodies.begun) == ["first", "second", "third"]


@pytest.mark.parametrize("fails", [False, True], ids=["handled", "dead letter"])
def test_what_has_ended_is_not_begun_again_although_its_ack_was_lost(
    settings: Settings, bodies: Bodies, run: Callable[..., Running], fails: bool
) -> None:
    """The broker delivers it again, and it is acked at once: handled once, or set aside once."""
    with behind_a_proxy(settings) as (proxy, through):

        def handle(app: Application, event: Event) -> None:
            bodies.handle(app, event)
            if fails:
                raise ValueError("not this one")

        running = run(HandlerDeclaration(handle, [KEY], name="test.handler", retry=0), through)
        bodies.may_end.clear()
        publish(settings, "first")
        eventually(lambda: bodies.begun == ["first"])
        if not fails:  # else its dead letter could not be published
            proxy.stall("broker")
        bodies.may_end.set()
        eventually(lambda: bodies.ended == ["first"])
        if fails:
            eventually(lambda: len(list_dead_letters()) == 1)
        proxy.cut()
        proxy.flow()
        publish(settings, "second")
        eventually(lambda: "second" in bodies.ended)
        running.stop()
    assert bodies.begun == ["first", "second"]
    eventually(lambda: running.waiting == 0)
    assert len(list_dead_letters()) == (2 if fails else 0)


def test_a_handler_that_has_become_slow_keeps_no_events_from_others(
    settings: Settings, bodies: Bodies, run: Callable[..., Running]
) -> None:
    """While it is quick some are here ahead of it; when it stands still all but the one go back."""
    running = run(declared(bodies))
    quick = [f"quick {number}" for number in range(100)]
    publish(settings, *quick)
    eventually(lambda: bodies.ended == quick)
    bodies.may_end.clear()
    late = [f"late {number}" for number in range(6)]
    publish(settings, *late)
    eventually(lambda: len(bodies.begun) == 101)
    eventually(lambda: running.waiting == 5)
    bodies.may_end.set()
    eventually(lambda: bodies.ended == [*quick, *late])
    running.stop()
    assert running.waiting == 0


def test_events_keep_their_order_whatever_the_pace(
    settings: Settings, bodies: Bodies, run: Callable[..., Running]
) -> None:
    """Quick ones, then slow ones that go back, then quick ones: each is handled once, in the order of the queue."""
    running = run(declared(bodies))
    texts = [f"event {number}" for number in range(130)]
    bodies.seconds = dict.fromkeys(texts[60:70], 0.2)
    publish(settings, *texts)
    eventually(lambda: len(bodies.ended) == len(texts))
    running.stop()
    assert bodies.begun == texts
    assert running.waiting == 0


def test_what_exceeds_its_limit_is_tried_again_by_another_process(
    settings: Settings, bodies: Bodies, run: Callable[..., Running]
) -> None:
    """The process in which it goes on takes no more events; that it ends there after all makes no difference."""
    handler = declared(bodies, time_limit=0.2, retry=Retry(times=1, delay=0.0))
    bodies.may_end.clear()
    first = run(handler)
    publish(settings, "stuck")
    eventually(lambda: first.reason == "event handler test.handler exceeded its time limit")
    publish(settings, "another")
    bodies.may_end.set()
    second = run(handler)
    eventually(lambda: sorted(bodies.ended) == ["another", "stuck", "stuck"])
    first.stop()
    second.stop()
    assert bodies.begun.count("stuck") == 2
    assert not list_dead_letters()
    assert second.waiting == 0


def test_what_exceeds_its_limit_for_the_last_time_is_a_dead_letter(
    settings: Settings, bodies: Bodies, run: Callable[..., Running]
) -> None:
    """Its reason is the limit."""
    bodies.may_end.clear()
    running = run(declared(bodies, time_limit=0.2))
    publish(settings, "stuck")
    [letter] = eventually(list_dead_letters)
    assert letter.reason == (
        "event handler test.handler failed: TimeLimitExceeded: it had not ended after 0.2 s, its time limit, and was "
        "cut off"
    )
    running.stop()


def test_a_soft_limit_interrupts_a_handler(settings: Settings, run: Callable[..., Running]) -> None:
    """SoftTimeLimitExceeded is raised in a function and in a coroutine, and is how they fail if they let it pass."""

    def spin(app: Application, event: Event) -> None:
        while True:
            pass

    async def sleep(app: Application, event: Event) -> None:
        await asyncio.sleep(3600)

    running = [
        run(HandlerDeclaration(body, [KEY], name=f"test.{body.__name__}", retry=0, soft_time_limit=0.2))
        for body in (spin, sleep)
    ]
    publish(settings, "both")
    letters = eventually(lambda: len(found := list_dead_letters()) == 2 and found)
    assert all("failed: SoftTimeLimitExceeded" in letter.reason for letter in letters)
    for one in running:
        assert not one.reason
        one.stop()


@pytest.mark.parametrize("option", ["time_limit", "soft_time_limit"])
def test_a_limit_must_be_over_before_the_broker_takes_the_event_away(bodies: Bodies, option: str) -> None:
    """Or it would be of no use: this is told when the worker starts."""
    limits = Limits(100.0, None, None)
    limits.check_handlers([declared(bodies, **{option: 95.0}), declared(bodies)])
    with pytest.raises(ConfigurationError, match=r"test\.handler may run for 96 s, and it is cut off after 95 s"):
        limits.check_handlers([declared(bodies, **{option: 96.0})])
