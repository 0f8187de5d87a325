"""A message in a queue of its own that nobody takes: if it goes, so do others, and a policy of the broker is why.

AMQP cannot show policies. One with `message-ttl` over all queues takes away tasks that wait, ends that are not recorded
yet and dead letters, and tells nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from limetask.amqp import Connection, Delivery
from limetask.codec import new_message_id
from limetask.errors import BrokerError
from limetask.message import Envelope
from limetask.topology import Names, marker_topology

_KIND = "marker"
# One without a lifetime, from before there was a policy, would keep that from being noticed.
_OLD = timedelta(days=1)
# Another process that looks holds the marker meanwhile.
_LOOKS = 5
_LEAVE_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class MarkerSeen:
    """What has become of the marker: for how long it has been there, or that it is gone."""

    age: timedelta
    is_gone: bool = False


async def leave_marker(connection: Connection, names: Names) -> None:
    """Leave a marker if there never was one; raises BrokerError, also if the user may not."""
    if await connection.find_queue(names.marker_queue) is None:
        await connection.declare(marker_topology(names))
        await _publish(connection, names)


async def leave_marker_if_possible(connection: Connection, names: Names) -> None:
    """Do the same for who has more important things to do: not for long, and without an error."""
    with contextlib.suppress(BrokerError, TimeoutError):
        async with asyncio.timeout(_LEAVE_SECONDS):
            await leave_marker(connection, names)


async def look_at_marker(connection: Connection, names: Names, new_for: float) -> MarkerSeen:
    """Return whether the marker is where it was left; a new one is looked at after `new_for` seconds.

    There is one afterwards in any case. Raises BrokerError, also if the user may not declare, write to or read from its
    queue.
    """
    await leave_marker(connection, names)
    delivery = await _take(connection, names)
    if delivery is None:
        await _publish(connection, names)
        return MarkerSeen(timedelta(), is_gone=True)
    age = datetime.now(UTC) - _left_at(delivery)
    if age > _OLD:
        await _publish(connection, names)
        connection.ack(delivery)
        return MarkerSeen(age)
    connection.give_back(delivery)
    if age < timedelta(seconds=new_for):
        await asyncio.sleep(new_for - max(0.0, age.total_seconds()))
        return await look_at_marker(connection, names, 0.0)
    return MarkerSeen(age)


async def _take(connection: Connection, names: Names) -> Delivery | None:
    for _ in range(_LOOKS):
        delivery = await connection.get(names.marker_queue)
        if delivery is not None:
            return delivery
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)
    return None


async def _publish(connection: Connection, names: Names) -> None:
    body = str(datetime.now(UTC).timestamp()).encode()
    await connection.publish("", names.marker_queue, Envelope(body, "text/plain", new_message_id(), _KIND))


def _left_at(delivery: Delivery) -> datetime:
    """Return when a marker was left; the beginning of time for what is not one, so that it is replaced."""
    try:
        timestamp = float(delivery.envelope.body)
        return datetime.fromtimestamp(timestamp if math.isfinite(timestamp) else 0.0, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC)
