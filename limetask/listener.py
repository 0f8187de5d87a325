"""Hears of the ends of the tasks that this process has sent, so that `wait` need not poll."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator

from limetask.amqp import Connection, Delivery, ReplyQueue
from limetask.errors import BrokerError, BrokerRefusedError, MessageRefusedError
from limetask.message import Completion
from limetask.records import decode_completion
from limetask.settings import Settings
from limetask.status import TaskStatus
from limetask.topology import Names

logger = logging.getLogger(__name__)

# Ends that arrive before anybody waits for them are kept for a while: the newest, up to this many bytes.
_KEPT_BYTES = 8 * 1024 * 1024
_QUEUE_LENGTH = 10_000
_CONNECT_SECONDS = 10.0


class Expected:
    """One caller's wait for one task's end."""

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
    """A reply queue of this process, on a connection of its own. Only `expecting` and `end_of` are thread-safe.

    What it tells is a hint that comes early: whoever waits must look into the store as well.
    """

    def __init__(self, settings: Settings, reply_key: str) -> None:
        self._connection = Connection(settings, "listener")
        self._connection.set_reply_queue(
            ReplyQueue(Names(settings.namespace).events_exchange, reply_key, _QUEUE_LENGTH, self._on_delivery)
        )
        self._lock = threading.Lock()
        self._expected: dict[str, list[Expected]] = {}
        self._kept: OrderedDict[str, tuple[TaskStatus, int]] = OrderedDict()
        self._kept_bytes = 0

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
        with self._lock:
            self._expected.setdefault(task_id, []).append(expected)
            if task_id in self._kept:
                expected.arrive(self._kept[task_id][0])
        try:
            yield expected
        finally:
            with self._lock:
                self._expected[task_id].remove(expected)
                if not self._expected[task_id]:
                    del self._expected[task_id]

    def end_of(self, task_id: str) -> TaskStatus | None:
        """Return a task's end if it has come and is still kept. Thread-safe."""
        with self._lock:
            return self._kept[task_id][0] if task_id in self._kept else None

    def _on_delivery(self, delivery: Delivery) -> None:
        try:
            end = status_of(decode_completion(delivery.envelope.body))
        except MessageRefusedError as exc:
            logger.warning("ignoring a reply: %s", exc)
            return
        with self._lock:
            self._keep(end, len(delivery.envelope.body))
            for expected in self._expected.get(end.id, ()):
                expected.arrive(end)

    def _keep(self, end: TaskStatus, size: int) -> None:
        if end.id in self._kept:
            self._kept_bytes -= self._kept[end.id][1]
        self._kept[end.id] = (end, size)
        self._kept_bytes += size
        while self._kept_bytes > _KEPT_BYTES:
            self._kept_bytes -= self._kept.popitem(last=False)[1][1]


def status_of(completion: Completion) -> TaskStatus:
    """Return the status that an event tells, as the store will."""
    return TaskStatus(
        id=completion.task_id,
        status=completion.status,
        result=completion.result,
        error=completion.error,
        task_name=completion.task_name,
        app=completion.app,
        attempt=completion.attempt,
        worker=completion.worker,
        sent_at=completion.sent_at,
        started_at=completion.started_at,
        finished_at=completion.finished_at,
    )
