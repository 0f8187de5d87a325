"""Event handlers and the broker's consumer timeout, which takes away what is not acked in time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from limetask import Settings, publish_event
from limetask.dead_letters import list_dead_letters
from limetask.topology import Names
from tests.broker import queue_length
from tests.faults.conftest import IMPATIENCE_SECONDS, StartWorker
from tests.waiting import eventually
from tests.worker import Worker

_PACKAGES = Path(__file__).parent / "packages"


class Trace:
    """What the handlers have written down."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def count(self, handler: str, what: str) -> Counter[int]:
        """Return how often `what` has happened in a handler, for each event's number."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        parts = [line.split() for line in lines]
        return Counter(int(number) for name, happened, number, _ in parts if (name, happened) == (handler, what))

    def order(self, handler: str, what: str) -> list[int]:
        lines = self.path.read_text().splitlines()
        return [int(line.split()[2]) for line in lines if line.startswith(f"{handler} {what} ")]


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    return Trace(tmp_path / "lasting-trace")


@pytest.fixture
def listen(start_worker: StartWorker, trace: Trace) -> Callable[..., Worker]:
    """Start a worker that runs the handlers."""
    return partial(
        start_worker,
        PYTHONPATH=str(_PACKAGES),
        LASTING_TRACE=str(trace.path),
    )


def publish(kind: str, number: int, seconds: float) -> None:
    publish_event("acme", f"lasting.{kind}", {"number": number, "seconds": seconds})


def test_a_handler_beyond_the_consumer_timeout_is_begun_once(
    impatient_settings: Settings, listen: Callable[..., Worker], trace: Trace
) -> None:
    """The broker takes its event away again and again, and with it those of its neighbours: nothing begins again."""
    worker = listen(impatient_settings, "lasting", "--roles", "events")
    publish("long", 1, 3 * IMPATIENCE_SECONDS)
    for number in range(4):
        publish("neighbour", number, 0.8 * IMPATIENCE_SECONDS)
    eventually(lambda: trace.count("long", "ended")[1], 40, "the end of the long handler")
    eventually(lambda: len(trace.count("neighbour", "ended")) == 4, 40, "the ends of its neighbours")
    publish("long", 2, 0.0)  # what was delivered again came before it
    eventually(lambda: trace.count("long", "ended")[2], 40)
    assert "the connection to the broker is lost" in worker.log, "the broker has taken nothing away"
    assert trace.count("long", "begun") == {1: 1, 2: 1}
    assert trace.count("neighbour", "begun") == dict.fromkeys(range(4), 1)
    names = Names(impatient_settings.namespace)
    eventually(lambda: queue_length(impatient_settings.broker_url, names.handler_queue("lasting.long")) == 0)
    assert worker.stop() == 0


def test_events_of_a_slow_handler_do_not_wait_where_the_broker_takes_them_away(
    impatient_settings: Settings, listen: Callable[..., Worker], trace: Trace
) -> None:
    """Many events of half a second take longer than the consumer timeout together: each begins once, in order."""
    worker = listen(impatient_settings, "lasting", "--roles", "events")
    for number in range(20):
        publish("short", number, 0.5)
    eventually(lambda: len(trace.count("short", "ended")) == 20, 60, "the ends of all events")
    assert trace.order("short", "begun") == [*range(20)]
    assert "the connection to the broker is lost" not in worker.log
    assert worker.stop() == 0


def test_a_handler_that_does_not_end_is_cut_off_before_the_consumer_timeout(
    impatient_settings: Settings, listen: Callable[..., Worker], trace: Trace
) -> None:
    """It fails as by an exception: is called once more, and then a dead letter; the others go on without it."""
    settings = replace(impatient_settings, consumer_timeout=float(IMPATIENCE_SECONDS))
    worker = listen(settings, "lasting", "--roles", "events", "--grace", "1")
    publish("retried", 1, 3600)
    publish("long", 2, 3600)
    [letter, *_] = eventually(lambda: [one for one in list_dead_letters() if "retried" in (one.queue or "")], 60)
    assert "lasting.retried failed 2 times: TimeLimitExceeded: it had not ended after" in letter.reason
    assert trace.count("retried", "begun") == {1: 2}
    publish("short", 3, 0.0)
    eventually(lambda: trace.count("short", "ended")[3], 30)
    assert "the connection to the broker is lost" not in worker.log
    worker.kill()


def test_a_handler_that_holds_up_its_process_is_killed_with_it(
    impatient_settings: Settings, listen: Callable[..., Worker], trace: Trace
) -> None:
    """A C function that never lets go of Python's global lock keeps nobody for longer than its limit and a moment."""
    trace.path.touch()
    worker = listen(impatient_settings, "lasting", "--roles", "events")
    publish("held", 1, 600)
    eventually(lambda: trace.count("held", "begun")[1], 30)
    publish("short", 2, 0.0)
    eventually(lambda: trace.count("short", "ended")[2], 30)
    eventually(lambda: trace.count("held", "ended")[1], 30)
    assert trace.count("held", "begun")[1] == 2
    assert "an event handler has exceeded its time limit and holds up its process" in worker.log
    assert worker.stop() == 0
