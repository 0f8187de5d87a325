"""Hears of the ends of the tasks that this process has sent, so that `wait` need not poll."""

from __future__ import annotations

import asyncio

from limetask.amqp import Connection, ReplyQueue
from limetask.ends import REPLY_QUEUE_LENGTH, Ends
from limetask.errors import BrokerError, BrokerRefusedError
from limetask.logs import careful_logger
from limetask.settings import Settings
from limetask.topology import Names

logger = careful_logger(__name__)

_CONNECT_SECONDS = 10.0


class Listener:
    """A reply queue of this process, on a connection of its own. Belongs to one loop."""

    def __init__(self, settings: Settings, reply_key: str, ends: Ends) -> None:
        self._starting: asyncio.Task[None] | None = None
        self._connection = Connection(settings, "listener")
        self._connection.set_reply_queue(
            ReplyQueue(
                Names(settings.namespace).events_exchange,
                reply_key,
                REPLY_QUEUE_LENGTH,
                lambda delivery: ends.hear(delivery.envelope.body),
            )
        )

    def start(self) -> None:
        """Connect, without waiting for it."""
        self._starting = asyncio.get_running_loop().create_task(self._start(), name="limetask listener")

    async def close(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
        await self._connection.close()

    async def _start(self) -> None:
        """Without a broker the listener stays silent and goes on trying; it gives up if it is refused."""
        try:
            await self._connection.ready(_CONNECT_SECONDS)
        except BrokerError as exc:
            logger.warning("waiting for tasks by asking the store only: %s", exc)
            if isinstance(exc, BrokerRefusedError):
                await self._connection.close()  # a user who may only send is refused each time
