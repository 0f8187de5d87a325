"""Policies that take messages away, as the doctor sees what comes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from limetask import Settings
from limetask.amqp import Connection
from limetask.doctor.finding import Finding
from limetask.doctor.policies import examine_policies
from limetask.marker import leave_marker
from limetask.topology import Names
from tests.broker import channel_to, queue_length
from tests.waiting import eventually
from tests.worker import Worker

TTL = "x-message-ttl"


def examine(settings: Settings) -> Finding:
    return examine_policies(settings, may_try=True)


def leave(settings: Settings) -> None:
    """Leave a marker, as a recorder does when it starts."""

    async def main() -> None:
        connection = Connection(settings, "test")
        try:
            await connection.ready(10)
            await leave_marker(connection, Names(settings.namespace))
        finally:
            await connection.close()

    asyncio.run(main())


def test_messages_that_stay_are_told_with_how_to_look_at_policies(settings: Settings) -> None:
    """The first look leaves a marker and waits for it, the next ones find the same; both are notes."""
    for _ in range(3):
        finding = examine(settings)
        assert (finding.is_well, finding.is_checked) == (True, False)
        assert "a message left" in finding.text
        assert "is still there" in finding.text
        assert "rabbitmqctl list_policies" in finding.remedy
        assert "must not set overflow, message-ttl or expires" in finding.remedy
    queue = Names(settings.namespace).marker_queue
    eventually(lambda: queue_length(settings.broker_url, queue) == 1)


def test_a_marker_that_is_gone_is_amiss_once(settings: Settings) -> None:
    """Whatever took it away takes others; the look after that has another marker."""
    leave(settings)
    with channel_to(settings.broker_url) as channel:
        channel.queue_purge(Names(settings.namespace).marker_queue)
    finding = examine(settings)
    assert not finding.is_well
    assert "message-ttl" in finding.text
    assert examine(settings).is_well


def test_what_is_not_a_marker_is_replaced(settings: Settings) -> None:
    """A foreign message does no harm, and a marker is not older than a day: it might have no lifetime yet."""
    leave(settings)
    queue = Names(settings.namespace).marker_queue
    for body in (b"\xff", b"nan", b"1e400", b"1000"):
        with channel_to(settings.broker_url) as channel:
            channel.queue_purge(queue)
            channel.basic_publish("", queue, body)
        assert examine(settings).is_well
        with channel_to(settings.broker_url) as channel:
            [left] = [eventually(lambda channel=channel: channel.basic_get(queue)[2])]  # type: ignore[misc]
        assert float(left) > 1e9


@pytest.mark.parametrize("may_try", [True, False])
def test_what_cannot_be_tried_is_a_note(settings: Settings, may_try: bool) -> None:
    """Without permission, or without a broker, it is said how to look."""
    absent = Settings(broker_url="amqp://127.0.0.1:1", connect_timeout=0.3, namespace=settings.namespace)
    finding = examine_policies(absent, may_try=may_try)
    assert finding.is_well
    assert "rabbitmqctl list_policies" in finding.remedy


def test_a_recorder_leaves_a_marker(settings: Settings, start_worker: Callable[..., Worker]) -> None:
    """So the first look of a doctor has something to look at."""
    start_worker(settings, "--roles", "recorder")
    eventually(lambda: queue_length(settings.broker_url, Names(settings.namespace).marker_queue) == 1)
