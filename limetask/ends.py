"""The ends of tasks that this process has heard of, and those who wait for them."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator

from limetask.answers import Answer
from limetask.errors import MessageRefusedError
from limetask.logs import careful_logger
from limetask.message import Completion
from limetask.records import decode_completion
from limetask.status import TaskStatus

logger = careful_logger(__name__)

Arrive = Callable[[TaskStatus], None]

REPLY_QUEUE_LENGTH = 10_000
"""How many ends a reply queue holds; what it carries is only ever a hint."""

# Ends that arrive before anybody waits for them are kept for a while: the newest, up to this many bytes.
_KEPT_BYTES = 8 * 1024 * 1024


class Ends:
    """What a reply queue has brought. Thread-safe, and safe in signal handlers.

    What it tells is a hint that comes early: whoever waits must look into the store as well.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may have interrupted its own thread in here
        self._expected: dict[str, list[Arrive]] = {}
        self._kept: OrderedDict[str, tuple[TaskStatus, int]] = OrderedDict()
        self._kept_bytes = 0

    def hear(self, body: bytes) -> None:
        """Take the event of a task's end, and tell those who wait for it."""
        try:
            end = status_of(decode_completion(body))
        except MessageRefusedError as exc:
            logger.warning("ignoring a reply: %s", exc)
            return
        with self._lock:
            self._keep(end, len(body))
            for arrive in self._expected.get(end.id, ()):
                arrive(end)

    @contextlib.contextmanager
    def expecting(self, task_id: str, arrive: Arrive) -> Iterator[None]:
        """Call `arrive` with a task's end as soon as it is known, at once if it is known already; it must not block."""
        with self._lock:
            waiting = self._expected.setdefault(task_id, [])
            waiting.append(arrive)
            self._expected[task_id] = waiting  # a signal handler may have waited for it meanwhile, and cleared up
            if task_id in self._kept:
                arrive(self._kept[task_id][0])
        try:
            yield
        finally:
            with self._lock:
                waiting.remove(arrive)
                if not waiting:
                    self._expected.pop(task_id, None)

    @contextlib.contextmanager
    def expected(self, status: TaskStatus) -> Iterator[Answer[TaskStatus]]:
        """Give what waits for the end of a task, of its application's only: for a thread."""
        end: Answer[TaskStatus] = Answer()

        def arrive(arrived: TaskStatus) -> None:
            if arrived.app == status.app:
                end.give(arrived)

        with self.expecting(status.id, arrive):
            yield end

    def end_of(self, task_id: str, app: str) -> TaskStatus | None:
        """Return the end of an application's task if it has come and is still kept."""
        with self._lock:
            end = self._kept[task_id][0] if task_id in self._kept else None
        return end if end is not None and end.app == app else None

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
