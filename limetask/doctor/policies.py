"""Whether a policy of the broker takes messages away; AMQP shows what comes of policies, and not the policies."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from limetask.amqp import Connection
from limetask.doctor.finding import Finding
from limetask.errors import BrokerError
from limetask.marker import MarkerSeen, look_at_marker
from limetask.settings import Settings
from limetask.topology import Names

_CONNECT_SECONDS = 10.0
_TRY_SECONDS = 20.0
NEW_MARKER_SECONDS = 3.0
"""So long a marker must stay that was left in this look."""

_COMMANDS = (
    "on the broker's host, `rabbitmqctl list_policies` and `rabbitmqctl list_operator_policies`, with -p and the "
    "virtual host,"
)
_RIGHT = (
    "a policy for limetask's queues may limit their length (max-length, max-length-bytes) and must not set overflow, "
    "message-ttl or expires"
)


def examine_policies(settings: Settings, *, may_try: bool) -> Finding:
    """Look whether the message that was left at the last look, or three seconds ago, is still there.

    Without `may_try` the broker would refuse the attempt.
    """
    if not may_try:
        return _untold("this user may not declare the queue with which it is tried whether messages stay")
    try:
        seen = asyncio.run(_look(settings))
    except BrokerError as exc:
        return _untold(f"it could not be tried whether messages stay: {exc}")
    except TimeoutError:
        return _untold(f"it could not be tried whether messages stay: no answer in {_TRY_SECONDS:g} s")
    return _told(seen, Names(settings.namespace))


async def _look(settings: Settings) -> MarkerSeen:
    connection = Connection(settings, "doctor")
    try:
        async with asyncio.timeout(_TRY_SECONDS):
            await connection.ready(_CONNECT_SECONDS)
            return await look_at_marker(connection, Names(settings.namespace), NEW_MARKER_SECONDS)
    finally:
        await connection.close()


def _told(seen: MarkerSeen, names: Names) -> Finding:
    if not seen.is_gone:
        return _untold(f"a message left {_ago(seen.age)} ago is still there. What else they do AMQP cannot show")
    return Finding(
        "policies",
        f"a message that was left in {names.marker_queue} is gone, and nobody takes any from there. Probably a policy "
        "with message-ttl or max-length takes messages away: tasks, ends and dead letters would be lost as well, and "
        "nobody told",
        f"{_COMMANDS} show it; {_RIGHT}. A policy of higher priority for the queues of this namespace, without those "
        "keys, goes before one for all queues. If somebody has purged that queue, run this again",
    )


def _untold(text: str) -> Finding:
    return Finding("policies", text, f"{_COMMANDS} show them: {_RIGHT}", is_checked=False)


def _ago(age: timedelta) -> str:
    seconds = max(0.0, age.total_seconds())
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
