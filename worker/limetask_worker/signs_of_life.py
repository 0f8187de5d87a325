"""Signs of life: small messages to the recorder at regular intervals, from each supervisor and each task process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from limetask.amqp import Connection
from limetask.errors import BrokerError

logger = logging.getLogger(__name__)

_SIGNS_PER_TIMEOUT = 6


async def give_signs_of_life(
    connection: Connection, worker_timeout: float, publish_sign: Callable[[], Awaitable[None]]
) -> None:
    """Call `publish_sign` six times in `worker_timeout` seconds, until cancelled; it is cancelled when the next is due.

    What cannot be published is left out.
    """
    interval = worker_timeout / _SIGNS_PER_TIMEOUT
    loop = asyncio.get_running_loop()
    while True:
        next_at = loop.time() + interval
        try:
            async with asyncio.timeout(interval):  # a cluster without a majority may never answer
                await connection.ready(timeout=interval)
                await publish_sign()
        except (BrokerError, TimeoutError) as exc:
            logger.debug("a sign of life was not confirmed: %s", exc)
        await asyncio.sleep(next_at - loop.time())
