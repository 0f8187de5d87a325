"""What the soak needs beside the ledger: a sender in a process of its own, and a watch over memory.

The sender keeps nothing of what it has sent: it writes that down, so that only a leak can make its memory grow.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import TracebackType

import psutil

from limetask import Settings
from tests.faults.load import Book, Load, Sent
from tests.worker import command_line, environment_of

_ROOT = Path(__file__).parent.parent.parent
_STOP_SECONDS = 20.0
_MIB = 1024 * 1024
_ROLES = {
    "limetask_worker.child": "task process",
    "limetask_worker.recorder": "recorder",
    "limetask_worker.solo": "task on its own",
}
_GROWTH_ALLOWED = 0.1
_SMALL_GROWTH_BYTES = 2 * _MIB  # more than 10 % of a small process, and no leak
_DESCRIPTORS_ALLOWED = 2


class Sender:
    """A process that sends early and late tasks in turn, `rate` a second, each running for `seconds`."""

    def __init__(self, settings: Settings, folder: Path, trace: Path, rate: float, seconds: float) -> None:
        self._journal = folder / "journal"
        self._journal.touch()
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__, self._journal, trace, str(rate), str(seconds)],
            env=environment_of(settings),
            cwd=_ROOT,
        )

    def assert_at_work(self) -> None:
        assert self.process.poll() is None, f"the sender has ended with {self.process.returncode}"

    def stop(self) -> None:
        """Return when no send is under way any more."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(_STOP_SECONDS) == 0

    def kill(self) -> None:
        """Kill it, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def tell(self, book: Book) -> None:
        """Enter what became of all sends."""
        for line in self._journal.read_text().splitlines():
            match json.loads(line):
                case ["confirmed", number, task_id, app, task_name]:
                    book.confirmed.append(Sent(number, task_id, app, task_name))
                case ["unknown", number, task_id]:
                    book.unknown[number] = task_id
                case ["late", number]:
                    book.late_numbers.add(number)
                case ["longest", seconds]:
                    book.longest_send = seconds


@contextmanager
def sending(settings: Settings, folder: Path, trace: Path, rate: float, seconds: float) -> Iterator[Sender]:
    """Send until the context ends."""
    sender = Sender(settings, folder, trace, rate, seconds)
    try:
        yield sender
        sender.stop()
    finally:
        sender.kill()


class _Journal(Book):
    """A book that is written into a file at once, and keeps nothing."""

    def __init__(self, path: Path, trace: Path) -> None:
        super().__init__(trace)
        self._file = path.open("a", buffering=1)
        self._writing = threading.Lock()

    def send(self, task_name: str, *arguments: object) -> Sent | None:
        sent = super().send(task_name, *arguments)
        self._write_down()
        return sent

    def close(self) -> None:
        self._write("longest", self.longest_send)
        self._file.close()

    def _write_down(self) -> None:
        """Move into the file what this thread, or another one, has entered."""
        with self._writing:
            while self.late_numbers:
                self._write("late", self.late_numbers.pop())
            while self.unknown:
                self._write("unknown", *self.unknown.popitem())
            while self.confirmed:
                sent = self.confirmed.pop()
                self._write("confirmed", sent.number, sent.task_id, sent.app, sent.task_name)
            self.refusals.clear()

    def _write(self, *entry: object) -> None:
        self._file.write(f"{json.dumps(entry)}\n")


def _send_until_stopped(journal: str, trace: str, rate: str, seconds: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    book = _Journal(Path(journal), Path(trace))
    try:
        with Load(book, sys.maxsize, float(rate), seconds=float(seconds)):
            while True:
                signal.pause()
    finally:
        book.close()


@dataclass(frozen=True)
class Sample:
    """What a process took at one moment."""

    at: float
    resident_bytes: int
    descriptors: int


@dataclass(frozen=True)
class Trend:
    """What a process took in the first third of a time and in its last third: the medians."""

    process: str
    first: Sample
    last: Sample

    @property
    def growth_bytes(self) -> int:
        return self.last.resident_bytes - self.first.resident_bytes

    @property
    def is_flat(self) -> bool:
        allowed = max(_GROWTH_ALLOWED * self.first.resident_bytes, _SMALL_GROWTH_BYTES)
        return self.growth_bytes <= allowed and not self.opens_ever_more

    @property
    def opens_ever_more(self) -> bool:
        return self.last.descriptors > self.first.descriptors + _DESCRIPTORS_ALLOWED

    def figures(self) -> dict[str, float]:
        """What the table shows."""
        return {
            "first_mib": round(self.first.resident_bytes / _MIB, 1),
            "last_mib": round(self.last.resident_bytes / _MIB, 1),
            "change_percent": round(100 * self.growth_bytes / self.first.resident_bytes, 1),
            "first_descriptors": self.first.descriptors,
            "last_descriptors": self.last.descriptors,
        }


@dataclass
class Watch:
    """Samples programs and all their children every few seconds, as long as the context lasts.

    Each sample is also a line in the file `samples`: process, id, seconds, bytes, descriptors.
    """

    samples: Path
    every_seconds: float
    _programs: dict[str, int] = field(default_factory=dict)
    _series: dict[tuple[str, int], list[Sample]] = field(default_factory=dict)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def follow(self, name: str, process_id: int) -> None:
        """Sample a program from now on, instead of the one that had its name."""
        self._programs = self._programs | {name: process_id}

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._sample_on, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(10)

    def trends(self, begun: float, ended: float) -> list[Trend]:
        """Compare the thirds of a time, for each process that has lived through all of it."""
        third = (ended - begun) / 3
        return [
            Trend(process, _middle(series, begun, begun + third), _middle(series, ended - third, ended))
            for (process, _), series in sorted(self._series.items())
            if self._covers(series, begun, ended)
        ]

    def _covers(self, series: Sequence[Sample], begun: float, ended: float) -> bool:
        slack = 3 * self.every_seconds
        return series[0].at <= begun + slack and series[-1].at >= ended - slack

    def _sample_on(self) -> None:
        begun = time.monotonic()
        with self.samples.open("w", buffering=1) as lines:
            while not self._stopped.wait(self.every_seconds):
                for process, process_id in self._processes():
                    sample = _sample_of(process_id)
                    if sample is not None:
                        self._series.setdefault((process, process_id), []).append(sample)
                        figures = f"{sample.at - begun:.0f} {sample.resident_bytes} {sample.descriptors}"
                        lines.write(f"{process}; {process_id} {figures}\n")

    def _processes(self) -> list[tuple[str, int]]:
        return [process for name, process_id in self._programs.items() for process in _family_of(name, process_id)]


def _family_of(name: str, process_id: int) -> list[tuple[str, int]]:
    """A program and its children, each with what it is called."""
    try:
        program = psutil.Process(process_id)
        children = program.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [(name, process_id), *((f"{name}: {_role_of(child)}", child.pid) for child in children)]


def _role_of(child: psutil.Process) -> str:
    arguments = command_line(child)
    return next((role for module, role in _ROLES.items() if module in arguments), "other")


def _sample_of(process_id: int) -> Sample | None:
    """None if the process has ended meanwhile."""
    try:
        process = psutil.Process(process_id)
        resident_bytes, descriptors = process.memory_info().rss, process.num_fds()
    except psutil.Error:
        return None
    return Sample(time.monotonic(), resident_bytes, descriptors) if resident_bytes else None


def _middle(series: Sequence[Sample], begun: float, ended: float) -> Sample:
    inside = [sample for sample in series if begun <= sample.at <= ended]
    return Sample(
        at=(begun + ended) / 2,
        resident_bytes=int(median(sample.resident_bytes for sample in inside)),
        descriptors=int(median(sample.descriptors for sample in inside)),
    )


if __name__ == "__main__":
    _send_until_stopped(*sys.argv[1:])
