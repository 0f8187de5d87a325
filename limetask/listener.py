"""Hears of the ends of the tasks that this process has sent, so that `wait` need not poll."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

from limetask.amqp import Connection, ReplyQueue
from limetask.ends import REPLY_QUEUE_LENGTH, Ends
from limetask.errors import BrokerError, BrokerRefusedError
from limetask.settings import Settings
from limetask.status import TaskStatus
from limetask.topology import Names

logger = logging.getLogger(__name__)

_CONNECT_SECONDS = 10.0


class Expected:
    """One thread's wait for one task's end."""

    def __init__(self) -> None:
        self._arrived = threading.Event()
        self._end: TaskStatus | None = None

    def arrive(self, end: TaskStatus) -> None:
        self._end = end
        self._arrived.set()

    def wait(self, timeout: float) -> TaskStatus | None:
        """Return the end, or None if it has not come within `timeout` seconds."""
        self._arrived.wait(timeout)
        return self._end


class Listener:
    """A reply queue of this process, on a connection of its own. Only `expecting` is thread-safe."""

    def __init__(self, settings: Settings, reply_key: str, ends: Ends) -> None:
        self._ends = ends
        self._connection = Connection(settings, "listener")
        self._connection.set_reply_queue(
            ReplyQueue(
                Names(settings.namespace).events_exchange,
                reply_key,
                REPLY_QUEUE_LENGTH,
                lambda delivery: ends.hear(delivery.envelope.body),
            )
        )

    async def start(self) -> None:
        """Connect; without a broker the listener stays silent and goes on trying, and gives up if it is refused."""
        try:
            await self._connection.ready(_CONNECT_SECONDS)
        except BrokerError as exc:
            logger.warning("waiting for tasks by asking the store only: %s", exc)
            if isinstance(exc, BrokerRefusedError):
                await self._connection.close()  # a user who may only send is refused each time

    async def close(self) -> None:
        await self._connection.close()

    @contextlib.contextmanager
    def expecting(self, task_id: str) -> Iterator[Expected]:
        """Give whoever waits for a task an Expected, for as long as it waits."""
        expected = Expected()
        with self._ends.expecting(task_id, expected.arrive):
            yield expected
