"""Three daemons whose processes are stopped, continued and killed by a schedule, and somebody who watches the tasks."""

from __future__ import annotations

import contextlib
import heapq
import os
import random
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import psutil

from limetask import TaskStatus
from tests.faults.ledger import Event, Ledger
from tests.faults.load import Sent
from tests.faults.model import Deeds, Life, Look
from tests.faults.schedule import Deed, Order, Target
from tests.worker import Worker

_LOOK_EVERY_SECONDS = 0.1
_LOOKS_AT_ENDED = 50
_MODULES: dict[Target, str] = {"recorder": "limetask_worker.recorder", "task process": "limetask_worker.child"}


class Torturer:
    """Does to daemons what a schedule says; a daemon whose supervisor is killed is started again."""

    def __init__(self, start: Callable[[], Worker], daemons: int, deeds: Deeds) -> None:
        self.deeds = deeds
        self.done: list[str] = []
        self._start = start
        self._daemons = [start() for _ in range(daemons)]
        self._stopped: list[tuple[float, int, float]] = []  # when it goes on, which process, since when
        self._orphans: list[psutil.Process] = []

    def follow(self, schedule: Iterable[Deed]) -> None:
        """Do all of it, each deed at its time, and let everything go on in the end."""
        begun = time.time()
        try:
            for deed in schedule:
                self._continue_until(begun + deed.at)
                self._do(deed)
            self._continue_until(max((moment for moment, _, _ in self._stopped), default=0.0))
        finally:
            for _, process, since in self._stopped:
                self._continue(process, since)
            self._stopped.clear()

    def assert_nothing_is_left(self) -> None:
        """Fail if a process outlives its killed supervisor."""
        _, alive = psutil.wait_procs(self._orphans, timeout=60)
        for orphan in alive:
            orphan.kill()
        assert not alive, f"they outlive their supervisor: {alive}"

    def _do(self, deed: Deed) -> None:
        worker = self._daemons[deed.daemon]
        victims = _victims(worker, deed)
        self.done.append(f"{deed}: {victims}")
        if deed.act == "KILL":
            self._kill(worker, victims)
            if worker.process.pid in victims:
                worker.process.wait()
                self._daemons[deed.daemon] = self._start()
        else:
            self._stop(victims, deed.seconds)

    def _kill(self, worker: Worker, victims: Sequence[int]) -> None:
        if worker.process.pid in victims:
            self._orphans += _children_of(worker)
        for process in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
                self.deeds.killed[process] = time.time()

    def _stop(self, victims: Sequence[int], seconds: float) -> None:
        stopped = {process for _, process, _ in self._stopped}
        for process in victims:
            if process not in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGSTOP)
                    heapq.heappush(self._stopped, (time.time() + seconds, process, time.time()))

    def _continue_until(self, moment: float) -> None:
        """Wait for a moment, and let go on what goes on before it."""
        while self._stopped and self._stopped[0][0] <= moment:
            goes_on, process, since = heapq.heappop(self._stopped)
            time.sleep(max(0.0, goes_on - time.time()))
            self._continue(process, since)
        time.sleep(max(0.0, moment - time.time()))

    def _continue(self, process: int, since: float) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)
        self.deeds.stops.append((process, since, time.time()))


def _victims(worker: Worker, deed: Deed) -> list[int]:
    """The process ids that a deed is for, none while there are no such processes."""
    supervisor = worker.process.pid
    try:
        match deed.target:
            case "supervisor":
                return [supervisor]
            case "everything":
                return [supervisor, *(child.pid for child in _children_of(worker))]
            case target:
                pids = sorted(worker.child_pids(_MODULES[target]))
                return pids[int(deed.which * len(pids)) :][:1]
    except psutil.NoSuchProcess:  # one that is dying just now
        return []


def _children_of(worker: Worker) -> list[psutil.Process]:
    children: list[psutil.Process] = psutil.Process(worker.process.pid).children()
    return children


@dataclass
class Watcher:
    """Looks at the statuses of all tasks, again and again, as long as the context lasts.

    Tasks that have not ended are looked at each time, of the others a few.
    """

    ledger: Ledger
    seen: defaultdict[str, list[Look]] = field(default_factory=lambda: defaultdict(list))
    _stopped: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Watcher:
        self._thread = threading.Thread(target=self._look_on, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(60)

    def look_at_all(self) -> None:
        """Look once at each."""
        for sent in list(self.ledger.book.confirmed):
            self._look_at(sent)

    def _look_on(self) -> None:
        while not self._stopped.wait(_LOOK_EVERY_SECONDS):
            confirmed = list(self.ledger.book.confirmed)
            ended = [sent for sent in confirmed if self._has_ended(sent)]
            for sent in confirmed:
                if not self._has_ended(sent):
                    self._look_at(sent)
            for sent in random.sample(ended, min(_LOOKS_AT_ENDED, len(ended))):
                self._look_at(sent)

    def _has_ended(self, sent: Sent) -> bool:
        seen = self.seen[sent.task_id]
        return bool(seen) and seen[-1].status in ("SUCCESS", "FAILURE")

    def _look_at(self, sent: Sent) -> None:
        status = self.ledger.status_of(sent)
        seen = self.seen[sent.task_id]
        if status is not None and (not seen or _differ(look := look_of(status), seen[-1])):
            seen.append(look_of(status) if not seen else look)


def _differ(one: Look, other: Look) -> bool:
    if one.status == other.status == "STARTED" and one.started_at != other.started_at:
        return True
    return (one.status, one.attempt, one.error_type, one.message) != (
        other.status,
        other.attempt,
        other.error_type,
        other.message,
    )


def look_of(status: TaskStatus) -> Look:
    """Return what a status says now."""
    error = ("", "") if status.error is None else (status.error.type, status.error.message)
    started_at = 0.0 if status.started_at is None else status.started_at.timestamp()
    return Look(time.time(), status.status.value, status.attempt, *error, status.worker or "", started_at)


def look_of_event(event: Event) -> Look:
    """Return what an event said when it came."""
    error = event.fields["error"] or {}
    return Look(
        at=event.arrived,
        status=event.status,
        attempt=event.fields["attempt"],
        error_type=event.error_type,
        message=str(error.get("message", "")),
        worker=str(event.fields["worker"]),
    )


def lives_of(ledger: Ledger) -> dict[str, Life]:
    """Return what the traces tell of all tasks, by their ids."""
    begun = defaultdict(list)
    processes = defaultdict(list)
    for number, process in ledger.traces():
        processes[number].append(process)
    for number, moment in _beginnings(ledger.book.trace.with_name(f"{ledger.book.trace.name}.times")):
        begun[number].append(moment)
    # A process may be killed between the two lines that a body leaves when it begins.
    return {
        sent.task_id: Life(
            sent.is_late,
            [
                (moments[n] if n < len(moments := begun[sent.number]) else 0.0, process)
                for n, process in enumerate(processes[sent.number])
            ],
        )
        for sent in ledger.book.confirmed
    }


def _beginnings(path: Path) -> list[tuple[int, float]]:
    lines = path.read_text().splitlines() if path.exists() else []
    fields = [line.split() for line in lines]
    return [(int(number), float(moment)) for number, what, moment in fields if what == "began"]


class Senders:
    """Sends tasks as they are ordered, `rate` a second, as long as the context lasts."""

    def __init__(self, ledger: Ledger, orders: Iterable[Order], rate: float) -> None:
        self._ledger = ledger
        self._orders = orders
        self._rate = rate
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._send_on, daemon=True)

    def __enter__(self) -> Senders:
        self._thread.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        self._stopped.set()
        self._thread.join(60)

    def _send_on(self) -> None:
        begun = time.monotonic()
        for turn, order in enumerate(self._orders):
            if self._stopped.wait(max(0.0, begun + turn / self._rate - time.monotonic())):
                return
            self._ledger.book.send(order.kind, order.seconds)
