"""How fast a worker runs what is queued, and what that costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks import BenchmarkError, figures
from benchmarks.processes import Usage, cpu_seconds, family
from benchmarks.services import ends_counter
from benchmarks.visit import Visit
from benchmarks.worker import Worker

_LOOK_AT_ENDS_SECONDS = 0.03
_SHARE_TO_TELL = 0.3
"""With fewer of the tasks left after the start-up, the processor time of one cannot be told."""

_MICROSECONDS = 1_000_000


def measure_draining(visit: Visit, worker: Worker) -> None:
    """Watch a worker that was just started from its first body to the last, and until all ends can be read."""
    with ExitStack() as stack:
        count_ends = stack.enter_context(ends_counter(visit.system, visit.place)) if visit.system.keeps_ends else None
        watch = _Watch(visit, worker, count_ends)
        watch.wait_for_starts()
        visit.figures[figures.DRAIN.key] = rate_of_starts(worker)
        if count_ends is not None:
            span = worker.starts.span()
            visit.figures[figures.DRAIN_READABLE.key] = worker.starts.tasks / (watch.wait_for_ends() - span.first)
        visit.figures.update(watch.processor_time())


def measure_sleeping(visit: Visit, task: str, tasks: int) -> float:
    """Queue tasks that sleep, have a worker run them, and return how many started in a second."""
    with visit.starts(tasks) as starts:
        visit.driver.send_many(task, 0, tasks)
        visit.ends += tasks
        with visit.worker(starts) as worker:
            wait_for_starts(worker)
            return rate_of_starts(worker)


def wait_for_starts(worker: Worker) -> None:
    """Return when all tasks have begun, each once."""
    starts = worker.starts
    worker.wait_until(lambda: starts.started == starts.tasks, lambda: starts.started)
    check_once(worker)


def check_once(worker: Worker) -> None:
    """Raise BenchmarkError if a task has begun twice."""
    if again := worker.starts.started_again:
        raise BenchmarkError(f"{again} tasks have begun more than once")


def rate_of_starts(worker: Worker) -> float:
    """Return the tasks a second from the first start to the last."""
    return (worker.starts.tasks - 1) / worker.starts.span().seconds


@dataclass(frozen=True)
class _Sample:
    """What everything had taken when `tasks` were started, or recorded."""

    tasks: int
    worker: Sequence[Usage]
    servers: dict[str, float]

    def of(self, role: str) -> float:
        return cpu_seconds([usage for usage in self.worker if usage.role == role])


class _Watch:
    """Takes samples at the moments that matter.

    Start-up does not count: a worker's processor time is taken from when all its processes have begun to run tasks,
    and a recorder's from its first record.
    """

    def __init__(self, visit: Visit, worker: Worker, count_ends: Callable[[], int] | None) -> None:
        self._visit = visit
        self._worker = worker
        self._starts = worker.starts
        self._count_ends = count_ends
        self._ends_before = count_ends() if count_ends is not None else 0
        self._servers = visit.services.server_pids()
        self._processes = worker.processes if visit.system.runs_tasks else 1
        self._at_work: _Sample | None = None
        self._recording: _Sample | None = None
        self._all_started: _Sample
        self._all_done: _Sample

    def wait_for_starts(self) -> None:
        self._worker.wait_until(self._look, lambda: self._starts.started)
        check_once(self._worker)
        self._all_started = self._all_done = self._sample(self._starts.tasks)

    def wait_for_ends(self) -> float:
        """Return when all ends can be read, in Unix seconds."""
        count_ends = self._count_ends
        assert count_ends is not None
        self._worker.wait_until(lambda: count_ends() >= self._visit.ends, count_ends, _LOOK_AT_ENDS_SECONDS)
        ended = time.time()
        self._all_done = self._sample(self._visit.ends)
        return ended

    def processor_time(self) -> dict[str, float]:
        """Return the microseconds a task, for what could be told from its start-up."""
        return self._of_worker_and_servers() | self._of_recorder()

    def _of_worker_and_servers(self) -> dict[str, float]:
        start, started, done = self._at_work, self._all_started, self._all_done
        if start is None or not self._is_enough(tasks := started.tasks - start.tasks):
            return {}
        seconds = {figures.CPU_WORKER.key: started.of("worker") - start.of("worker")}
        for name, figure in ("broker", figures.CPU_BROKER), (self._visit.system.results, figures.CPU_STORE):
            if name in self._servers:
                seconds[figure.key] = done.servers[name] - start.servers[name]
        return {key: _MICROSECONDS * taken / tasks for key, taken in seconds.items()}

    def _of_recorder(self) -> dict[str, float]:
        start, done = self._recording, self._all_done
        if start is None or not self._is_enough(tasks := done.tasks - start.tasks):
            return {}
        return {figures.CPU_RECORDER.key: _MICROSECONDS * (done.of("recorder") - start.of("recorder")) / tasks}

    def _is_enough(self, tasks: int) -> bool:
        return tasks >= _SHARE_TO_TELL * self._starts.tasks

    def _look(self) -> bool:
        started = self._starts.started
        if self._at_work is None and self._starts.processes >= self._processes:
            self._at_work = self._sample(started)
        if self._recording is None and self._visit.system.recorder and self._count_ends is not None:
            recorded = self._count_ends()
            if recorded > self._ends_before:
                self._recording = self._sample(recorded)
        return started == self._starts.tasks

    def _sample(self, tasks: int) -> _Sample:
        servers = {name: cpu_seconds(family(pid, lambda _: "")) for name, pid in self._servers.items()}
        return _Sample(tasks, self._worker.usages(), servers)
