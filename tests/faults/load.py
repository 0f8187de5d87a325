"""Senders that go on sending while something breaks, and know what became of each send."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from limetask import BrokerError, SendOutcomeUnknownError, Settings, send_task
from tests.waiting import eventually

EARLY = "faulty.tasks.early"
LATE = "faulty.tasks.late"
EARLY_KINDS = (EARLY, *(f"faulty.mixed.early_{kind}" for kind in ("within_limit", "async", "forking")))
LATE_KINDS = (LATE, *(f"faulty.mixed.late_{kind}" for kind in ("within_limit", "async")))
MIXED = (
    *(EARLY, LATE, "faulty.mixed.early_within_limit", LATE, "faulty.mixed.early_async", LATE, EARLY, LATE, EARLY, LATE),
    *("faulty.mixed.early_within_limit", LATE, "faulty.mixed.early_forking", LATE, "faulty.mixed.early_async", LATE),
)
"""All kinds, half of them late."""

_LATE_TASKS = frozenset(f"faulty.tasks.{name}" for name in ("late", "held_late", "poison", "bulky_late")) | {
    f"faulty.mixed.{name}" for name in ("late", "late_async", "late_within_limit", "late_limited")
}
_APPLICATIONS = ("acme", "umbrella")
_THREADS = 4
_PAUSE_SECONDS = 0.05  # after a send that failed


@dataclass(frozen=True)
class Sent:
    """A task whose send has returned."""

    number: int
    task_id: str
    app: str
    task_name: str

    @property
    def is_late(self) -> bool:
        return self.task_name in _LATE_TASKS


@dataclass
class Book:
    """What became of the sends: confirmed, unknown (the broker may have the task or not), refused."""

    trace: Path
    confirmed: list[Sent] = field(default_factory=list)
    unknown: dict[int, str | None] = field(default_factory=dict)
    refusals: list[Exception] = field(default_factory=list)
    late_numbers: set[int] = field(default_factory=set)
    longest_send: float = 0.0
    _next_number: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, task_name: str, *arguments: object) -> Sent | None:
        """Send one task, with the trace's path and a number of its own before its arguments."""
        with self._lock:
            number = self._next_number
            self._next_number += 1
        app = _APPLICATIONS[number % len(_APPLICATIONS)]
        if Sent(number, "", app, task_name).is_late:
            self.late_numbers.add(number)
        begun = time.monotonic()
        try:
            sent = Sent(number, send_task(task_name, app, str(self.trace), number, *arguments).id, app, task_name)
        except SendOutcomeUnknownError as exc:
            self.unknown[number] = exc.task_id
        except BrokerError as exc:
            self.unknown[number] = None
            self.refusals.append(exc)
        else:
            self.confirmed.append(sent)
            return sent
        finally:
            self.longest_send = max(self.longest_send, time.monotonic() - begun)
        return None


class Load:
    """Sends tasks in turn until `count` more are confirmed: `rate` a second, each running for `seconds`.

    It is a context that ends when all are sent.
    """

    def __init__(self, book: Book, count: int, rate: float, tasks: Sequence[str] = MIXED, seconds: float = 0.0) -> None:
        self._book = book
        self._tasks = tasks
        self._seconds = seconds
        self._rate = rate
        self._target = len(book.confirmed) + count
        self._turn = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._begun = time.monotonic()
        self._threads = [threading.Thread(target=self._send_on, daemon=True) for _ in range(_THREADS)]

    def __enter__(self) -> Load:
        self._begun = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        if kind is not None:
            self._stopped.set()
        for thread in self._threads:
            thread.join(90)
        self._stopped.set()
        assert not any(thread.is_alive() for thread in self._threads), "the senders have not sent all tasks in time"

    def wait_for_share(self, share: float, timeout: float = 60.0) -> None:
        """Return when this share of the tasks is confirmed."""
        self.wait_for(int(share * self._target), timeout)

    def wait_for(self, confirmed: int, timeout: float = 60.0) -> None:
        """Return when as many tasks are confirmed."""
        eventually(lambda: len(self._book.confirmed) >= confirmed, timeout, f"{confirmed} confirmed sends")

    def _send_on(self) -> None:
        while not self._stopped.is_set():
            with self._lock:
                turn = self._turn
                self._turn += 1
            self._stopped.wait(max(0.0, self._begun + turn / self._rate - time.monotonic()))
            if self._is_done():
                return
            if self._book.send(self._tasks[turn % len(self._tasks)], self._seconds) is None:
                self._stopped.wait(_PAUSE_SECONDS)

    def _is_done(self) -> bool:
        return self._stopped.is_set() or len(self._book.confirmed) >= self._target


def assert_within_deadline(book: Book, settings: Settings) -> None:
    """No send may take longer than its deadline and a second."""
    assert book.longest_send <= settings.send_timeout + 1, f"a send took {book.longest_send:.1f} s"
