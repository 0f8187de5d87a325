"""The one invariant of all fault tests, checked over every task whose send was confirmed.

After the fault is over and the system has come to rest, each task has ended or is visibly waiting; its end is told by
an event that agrees with its status; an early body has started once at most, a late one at least once; nothing stays
STARTED, and no send has outlived its deadline. Of a task whose body has ended well no failure is told, not even for a
moment.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pika.exceptions import AMQPError

from limetask import NotFoundError, Settings, Status, StoreError, TaskStatus, get_status
from limetask.message import BEGUN_TOO_OFTEN, END_LOST, WORKER_LOST
from limetask.topology import QOS_CATEGORIES, Names
from tests.broker import channel_to, declare_namespace, queue_length
from tests.faults.load import EARLY, Book, Sent, assert_within_deadline
from tests.faults.report import report
from tests.waiting import eventually
from tests.worker import Worker

# A broker that comes back on a busy machine may take no message for a minute.
_REST_SECONDS = 120.0
_SHOWN = 5


@dataclass(frozen=True)
class Event:
    """A completion event, and when it came."""

    fields: dict[str, Any]
    arrived: float

    @property
    def status(self) -> str:
        return str(self.fields["status"])

    @property
    def error_type(self) -> str:
        return str((self.fields["error"] or {}).get("type", ""))

    @property
    def is_presumed(self) -> bool:
        """Whether somebody else told of the end, without knowing how the body has ended."""
        return self.error_type in (WORKER_LOST, END_LOST)

    @property
    def tells_a_death(self) -> bool:
        """Whether a process is said to have died, which the test has seen to, or died of: the last of many, perhaps."""
        message = str((self.fields["error"] or {}).get("message", ""))
        return self.error_type == BEGUN_TOO_OFTEN or (
            self.error_type == WORKER_LOST and message.startswith("the worker process")
        )

    @property
    def finished_at(self) -> float:
        return datetime.fromisoformat(self.fields["finished_at"]).timestamp()


class EventLog:
    """All completion events of a namespace, by a durable queue: it hears of all, whatever happens to the broker."""

    def __init__(self, settings: Settings) -> None:
        self.by_task: defaultdict[str, list[Event]] = defaultdict(list)
        self.was_deaf = False
        self._settings = settings
        self._queue = f"{settings.namespace}.ledger"
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._collect, daemon=True)

    def open(self) -> None:
        declare_namespace(self._settings.broker_url, self._settings.namespace)
        exchange = Names(self._settings.namespace).events_exchange
        with channel_to(self._settings.broker_url) as channel:
            channel.queue_declare(self._queue, durable=True, arguments={"x-queue-type": "quorum"})
            channel.queue_bind(self._queue, exchange, "core.task.#")
        self._thread.start()

    def move_to(self, settings: Settings) -> None:
        """Listen at another node of the same cluster from the next connection on."""
        self._settings = settings

    def close(self) -> None:
        self._stopped.set()
        self._thread.join(10)
        with contextlib.suppress(AMQPError, OSError), channel_to(self._settings.broker_url) as channel:
            channel.queue_delete(self._queue)

    @contextlib.contextmanager
    def unbound(self) -> Iterator[None]:
        """Hear of nothing for a while: events that are sent meanwhile are not missed."""
        self.was_deaf = True
        exchange = Names(self._settings.namespace).events_exchange
        with channel_to(self._settings.broker_url) as channel:
            channel.queue_unbind(self._queue, exchange, "core.task.#")
            try:
                yield
            finally:
                channel.queue_bind(self._queue, exchange, "core.task.#")

    def all(self) -> list[Event]:
        return [event for events in list(self.by_task.values()) for event in list(events)]

    def first_end_after(self, moment: float) -> float | None:
        """Return when the first task ended successfully after a moment."""
        ends = [event.finished_at for event in self.all() if event.status == "SUCCESS"]
        return min((end for end in ends if end > moment), default=None)

    def _collect(self) -> None:
        while not self._stopped.is_set():
            try:
                self._collect_from_one_connection()
            except (AMQPError, OSError):
                self._stopped.wait(0.1)  # the broker is what the test has broken

    def _collect_from_one_connection(self) -> None:
        with channel_to(self._settings.broker_url) as channel:
            for method, _, body in channel.consume(self._queue, inactivity_timeout=0.1):
                if method is not None:
                    fields = json.loads(body)
                    self.by_task[fields["task_id"]].append(Event(fields, time.time()))
                    channel.basic_ack(method.delivery_tag)
                if self._stopped.is_set():
                    return


@dataclass(frozen=True)
class Verdict:
    """What a fault did to the tasks. Each list names those to which it should not have happened.

    `corrected` is how many were told as lost before their real end was, and `untold` how many had ended well in a
    process that died before it could tell.
    """

    tasks: int
    lost: Sequence[Sent]
    stuck: Sequence[str]
    duplicated: Sequence[int]
    duplicated_late: int
    not_run: Sequence[Sent]
    contradictory: Sequence[str]
    false_failures: Sequence[Sent]
    corrected: int
    untold: int
    waiting: Sequence[Sent]
    failures: Counter[str]
    failed_unbegun: Sequence[Sent]
    recovery_seconds: float | None

    def assert_kept(self) -> None:
        """Fail if any guarantee was broken, and say how."""
        broken = {
            "lost": self.lost,
            "stuck in STARTED": self.stuck,
            "early bodies started twice": self.duplicated,
            "SUCCESS without a body's start": self.not_run,
            "events that contradict the status": self.contradictory,
            "failures told of bodies that ended well": self.false_failures,
        }
        said = [f"{len(found)} {what}: {found[:_SHOWN]}" for what, found in broken.items() if found]
        assert not said, f"of {self.tasks} tasks " + "; ".join(said)


@dataclass
class Ledger:
    """Sends the tasks of one test, and checks the invariant over them at its end."""

    settings: Settings
    book: Book
    events: EventLog
    _started_workers: list[Worker] = field(default_factory=list)

    def employ(self, worker: Worker) -> Worker:
        """Have a worker stopped before the books are closed: only then nothing more can happen."""
        self._started_workers.append(worker)
        return worker

    def starts(self) -> Counter[int]:
        """How often each number's body has started."""
        return Counter(number for number, _ in self.traces())

    def ended_well(self) -> set[int]:
        """The numbers of the bodies that came to their end at least once."""
        return {number for number, _ in self.traces(".ends")}

    def traces(self, kind: str = "") -> list[tuple[int, int]]:
        """Number and process id of every start, or of every end."""
        path = Path(f"{self.book.trace}{kind}")
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(number), int(pid)) for number, pid in map(str.split, lines)]

    def wait_for_starts(self, count: int, timeout: float = 30.0) -> None:
        eventually(lambda: len(self.traces()) >= count, timeout, f"{count} bodies started")

    def wait_for_recovery(self, moment: float, task_name: str = EARLY, timeout: float = 40.0) -> None:
        """Return when a task can be sent, and one has ended after a moment."""
        eventually(lambda: self.book.send(task_name, 0.0), timeout, "a send that returns")
        eventually(lambda: self.events.first_end_after(moment), timeout, "a new completion")

    def wait_for_ends(self, timeout: float) -> None:
        """Return when all tasks have ended, for faults after which that takes longer than `check` waits."""
        try:
            eventually(lambda: all(map(self._is_ended, self.book.confirmed)), timeout, "an end of every task")
        except AssertionError as exc:
            raise AssertionError(f"{exc}; {self._say_what_is_left()}") from None

    def _say_what_is_left(self) -> str:
        left = [sent for sent in self.book.confirmed if not self._is_ended(sent)]
        starts, ended_well, visible = self.starts(), self.ended_well(), self.visible_ids()
        said = [
            f"{sent} {self.status_of(sent)}, started {starts[sent.number]} times, ended well: "
            f"{sent.number in ended_well}, in a queue: {sent.task_id in visible}"
            for sent in left[:_SHOWN]
        ]
        logs = [worker.log for worker in self._started_workers]
        return "\n".join([f"{len(left)} are left:", *said, *logs])

    def check(
        self, fault: str, fault_ended: float, recovered: float | None = None, *, were_silent: bool = False
    ) -> Verdict:
        """Wait for rest, stop the workers, judge, write the report, and fail if a guarantee was broken.

        `recovered` is when the system was at work again, by default when the first task ended after the fault.
        `were_silent` is whether a host gave no sign of life for so long that its tasks may be told as lost.
        """
        self._come_to_rest()
        for worker in self._started_workers:
            if worker.process.poll() is None:
                assert worker.stop() == 0, worker.log
        first = recovered if recovered is not None else self.events.first_end_after(fault_ended)
        verdict = self._judge(None if first is None else max(0.0, first - fault_ended), were_silent=were_silent)
        report(
            fault,
            tasks=verdict.tasks,
            unknown=len(self.book.unknown),
            lost=len(verdict.lost),
            stuck=len(verdict.stuck),
            duplicated=len(verdict.duplicated),
            duplicated_late=verdict.duplicated_late,
            corrected=verdict.corrected,
            untold=verdict.untold,
            failures=dict(verdict.failures),
            recovery_seconds=None if verdict.recovery_seconds is None else round(verdict.recovery_seconds, 2),
        )
        verdict.assert_kept()
        assert_within_deadline(self.book, self.settings)
        return verdict

    def status_of(self, sent: Sent) -> TaskStatus | None:
        """What the store says of a task; None while it cannot be read."""
        try:
            return get_status(sent.task_id, sent.app)
        except StoreError:
            return None

    def _come_to_rest(self) -> None:
        remaining = list(self.book.confirmed)
        deadline = time.monotonic() + _REST_SECONDS
        while remaining and time.monotonic() < deadline:
            remaining = [sent for sent in remaining if not self._is_told_and_recorded(sent)]
            time.sleep(0.05)
        if not remaining:
            self._wait_for_empty_queues(max(5.0, deadline - time.monotonic()))
        while any(map(self._is_stuck, self._unknown_ids())) and time.monotonic() < deadline:
            time.sleep(0.05)

    def _is_ended(self, sent: Sent) -> bool:
        status = self.status_of(sent)
        return status is not None and status.is_completed()

    def _is_told_and_recorded(self, sent: Sent) -> bool:
        if sent.task_id not in self.events.by_task and not self.events.was_deaf:
            return False
        return self._is_ended(sent)

    def _wait_for_empty_queues(self, timeout: float) -> None:
        """Copies of tasks whose send was unknown or came again may still wait."""
        url, names = self.settings.broker_url, Names(self.settings.namespace)
        queues = [*map(names.task_queue, QOS_CATEGORIES), names.results_queue]
        eventually(lambda: not any(queue_length(url, queue) for queue in queues), timeout, "empty queues")

    def _judge(self, recovery_seconds: float | None, *, were_silent: bool) -> Verdict:
        starts, ended_well = self.starts(), self.ended_well()
        statuses = {sent: self.status_of(sent) for sent in self.book.confirmed}
        unfinished = [sent for sent, status in statuses.items() if status is None or not status.is_completed()]
        visible = self.visible_ids() if unfinished else frozenset()
        failed = [sent for sent, status in statuses.items() if status is not None and status.status is Status.FAILURE]
        stuck = [sent.task_id for sent in unfinished if _is_started(statuses[sent])]
        return Verdict(
            tasks=len(statuses),
            lost=[sent for sent in unfinished if sent.task_id not in visible and not _is_started(statuses[sent])],
            stuck=stuck + [task_id for task_id in self._unknown_ids() if self._is_stuck(task_id)],
            duplicated=[number for number, count in starts.items() if count > 1 and not self._is_late(number)],
            duplicated_late=sum(count - 1 for number, count in starts.items() if self._is_late(number)),
            not_run=[sent for sent, status in statuses.items() if _succeeded(status) and not starts[sent.number]],
            contradictory=[sent.task_id for sent, status in statuses.items() if self._contradict(sent, status)],
            false_failures=[
                sent
                for sent in statuses
                if sent.number in ended_well and self._is_told_falsely(sent, were_silent=were_silent)
            ],
            corrected=sum(self._is_corrected(sent) for sent in statuses),
            untold=sum(sent.number in ended_well for sent in failed),
            waiting=[sent for sent in unfinished if sent.task_id in visible],
            failures=Counter(_error_type(statuses[sent]) for sent in failed),
            failed_unbegun=[sent for sent in failed if not starts[sent.number]],
            recovery_seconds=recovery_seconds,
        )

    def _is_late(self, number: int) -> bool:
        return number in self.book.late_numbers

    def _unknown_ids(self) -> list[str]:
        return [task_id for task_id in self.book.unknown.values() if task_id is not None]

    def _is_stuck(self, task_id: str) -> bool:
        for app in ("acme", "umbrella"):
            with contextlib.suppress(NotFoundError):
                return _is_started(get_status(task_id, app))
        return False

    def _contradict(self, sent: Sent, status: TaskStatus | None) -> bool:
        """Return True unless a completed task's events tell its one end, each with an id."""
        if status is None or not status.is_completed():
            return False
        events = self.events.by_task.get(sent.task_id, [])
        if not events and self.events.was_deaf:
            return False
        # A presumed loss gives way to the real end.
        ends = {event.status for event in events if not event.is_presumed} or {event.status for event in events}
        return ends != {status.status.value} or not all(event.fields["id"] for event in events)

    def _is_told_falsely(self, sent: Sent, *, were_silent: bool) -> bool:
        """Return True if a failure was told of a task whose body has ended well, other than its process's death."""
        events = self.events.by_task.get(sent.task_id, [])
        is_told = any(event.status == "SUCCESS" for event in events)
        return any(
            event.status == "FAILURE"
            and not (event.tells_a_death and not is_told)
            and not (event.is_presumed and were_silent)
            for event in events
        )

    def _is_corrected(self, sent: Sent) -> bool:
        events = self.events.by_task.get(sent.task_id, [])
        return any(event.is_presumed for event in events) and not all(event.is_presumed for event in events)

    def visible_ids(self) -> frozenset[str]:
        """The ids of all tasks that wait in a queue or lie with the dead letters."""
        names = Names(self.settings.namespace)
        queues = [*map(names.task_queue, QOS_CATEGORIES), names.dead_queue]
        with channel_to(self.settings.broker_url) as channel:  # closing it returns the messages
            return frozenset(task_id for queue in queues for task_id in _task_ids_in(channel, queue))


def _task_ids_in(channel: Any, queue: str) -> Iterator[str]:
    while True:
        method, properties, _ = channel.basic_get(queue)
        if method is None:
            return
        headers = properties.headers or {}
        yield str(headers.get("original", headers).get("task_id"))


def _is_started(status: TaskStatus | None) -> bool:
    return status is not None and status.status is Status.STARTED


def _succeeded(status: TaskStatus | None) -> bool:
    return status is not None and status.status is Status.SUCCESS


def _error_type(status: TaskStatus | None) -> str:
    return status.error.type if status is not None and status.error is not None else ""


def now() -> float:
    """This moment, comparable with the times in events."""
    return datetime.now(UTC).timestamp()
