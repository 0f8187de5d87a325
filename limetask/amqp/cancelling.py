"""Why the broker has cancelled a consumer: it does not say, so the queue is looked for. For both client libraries."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from limetask.errors import BrokerError, ConnectionLostError

_LOOK_SECONDS = 2.0

_DELETED = "the queue was deleted"
_IS_THERE = (
    "a message was not acked within the broker's consumer timeout, which LIMETASK_CONSUMER_TIMEOUT must not exceed, or "
    "the queue has moved to another node"
)


async def why_cancelled(queue: str, finding: Awaitable[object | None]) -> ConnectionLostError:
    """Return the error for a consumer of `queue` that the broker has cancelled; `finding` gives None if it is gone.

    From RabbitMQ 4.3 on a consumer is cancelled for a message that is not acked in time, too.
    """
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            is_there = await finding is not None
    except (BrokerError, TimeoutError):
        cause = f"{_DELETED}, or {_IS_THERE}"
    else:
        cause = f"the queue is there, so {_IS_THERE}" if is_there else _DELETED
    return ConnectionLostError(f"the broker cancelled the consumer of {queue}: {cause}")
