"""Deliveries that come long after the broker has decided on them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from limetask_worker import delivery_lag
from limetask_worker.delivery_lag import DeliveryLag


class Time:
    """Stands in for the module: both clocks of it, as one number of seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    clock = Time()
    monkeypatch.setattr(delivery_lag, "time", clock)
    return clock


def lag_of_new_consumer() -> DeliveryLag:
    lag = DeliveryLag()
    lag.begin()
    return lag


def deliver(lag: DeliveryLag, clock: Time, *, after: float, age: float, connected_at: float = 0.0) -> bool:
    """Return whether a message of that age, which comes `after` so many seconds, is late."""
    clock.now += after
    lag.note(connected_at)
    return lag.is_late(datetime.fromtimestamp(clock.now - age, UTC))


def test_what_was_sent_long_ago_is_late_after_a_silence(clock: Time) -> None:
    """And so is all that follows, until something young shows that the node has caught up."""
    lag = lag_of_new_consumer()
    assert not deliver(lag, clock, after=0.1, age=60.0)  # a backlog
    assert deliver(lag, clock, after=2.0, age=60.0)
    assert deliver(lag, clock, after=0.0, age=50.0)
    assert deliver(lag, clock, after=0.5, age=2.0)
    assert not deliver(lag, clock, after=0.5, age=0.1)
    assert not deliver(lag, clock, after=0.5, age=60.0)


def test_a_young_message_after_a_silence_is_not_late(clock: Time) -> None:
    """There was just nothing to do."""
    lag = lag_of_new_consumer()
    assert not deliver(lag, clock, after=600.0, age=0.1)
    assert not deliver(lag, clock, after=0.1, age=60.0)


def test_the_suspicion_ends(clock: Time) -> None:
    """Even though all messages of a backlog are old."""
    lag = lag_of_new_consumer()
    assert deliver(lag, clock, after=2.0, age=60.0)
    assert deliver(lag, clock, after=1.0, age=60.0)
    for _ in range(29):
        deliver(lag, clock, after=1.0, age=60.0)
    assert not deliver(lag, clock, after=1.0, age=60.0)


def test_a_backlog_waits_for_a_consumer_that_is_new(clock: Time) -> None:
    """Whether it has been made anew, or its connection: the time before it says nothing."""
    lag = lag_of_new_consumer()
    clock.now += 600.0
    lag.begin()
    assert not deliver(lag, clock, after=0.1, age=60.0)
    assert deliver(lag, clock, after=2.0, age=60.0)
    assert not deliver(lag, clock, after=600.0, age=60.0, connected_at=clock.now + 599.9)


def test_a_silence_counts_from_the_beginning_of_its_connection(clock: Time) -> None:
    """The first delivery may be late as well."""
    lag = lag_of_new_consumer()
    assert deliver(lag, clock, after=600.0, age=60.0, connected_at=clock.now + 590.0)
