"""What statuses and events may say of a task while the processes that run it are stopped and killed. Pure.

A status only goes forward: PENDING, STARTED, SUCCESS or FAILURE. There are two exceptions, which are counted: a start
is taken back if its body had not begun, and a presumed loss gives way to the real end. Nobody may be presumed lost who
is not: a process must have been killed, or its host silent for long enough. Only of a host that was silent may the real
end still come: a process that is told as dead tells nothing any more.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from limetask.message import WORKER_LOST

_SILENT = "no sign of life"
_TOO_OFTEN = "BegunTooOftenError"
_RANKS = {"PENDING": 0, "STARTED": 1, "SUCCESS": 2, "FAILURE": 2}
# A worker gives so many signs of life in the time after which it counts as dead.
_SIGNS = 6
# On a busy machine a signal takes effect so much later, and a sign of life arrives so much later.
_SLACK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Look:
    """What somebody saw of a task at one moment: its status, or an event. Without a start, `started_at` is 0."""

    at: float
    status: str
    attempt: int = 1
    error_type: str = ""
    message: str = ""
    worker: str = ""
    started_at: float = 0.0

    def __str__(self) -> str:
        error = f" ({self.error_type}: {self.message})" if self.error_type else ""
        return f"{self.status}{error} of attempt {self.attempt} by {self.worker or 'nobody'} at {self.at:.2f}"


@dataclass(frozen=True, slots=True)
class Life:
    """What is known of a task beside its statuses: when its bodies began, and in which processes."""

    is_late: bool
    begun: Sequence[tuple[float, int]] = ()


@dataclass
class Deeds:
    """What was done to processes, by their ids: when which was killed, and when which supervisors were stopped."""

    worker_timeout: float
    max_deliveries: int
    killed: dict[int, float] = field(default_factory=dict)
    stops: list[tuple[int, float, float]] = field(default_factory=list)

    def was_silent(self, supervisor: int, at: float) -> bool:
        """Return True if a supervisor may not have given a sign of life for long enough to count as dead."""
        enough = self.worker_timeout * (1 - 1 / _SIGNS) - _SLACK_SECONDS
        return any(
            begin + enough <= at <= end + _SLACK_SECONDS and end - begin >= enough
            for begin, end in self._silences(supervisor)
        )

    def _silences(self, supervisor: int) -> Iterator[tuple[float, float]]:
        """Times without a sign of life; one between two stops may be too short for a sign."""
        stops = sorted((begin, end) for process, begin, end in self.stops if process == supervisor)
        if supervisor in self.killed:
            stops.append((self.killed[supervisor], math.inf))
        silence: tuple[float, float] | None = None
        for begin, end in stops:
            if silence is not None and begin <= silence[1] + _SLACK_SECONDS:
                silence = silence[0], max(silence[1], end)
            else:
                if silence is not None:
                    yield silence
                silence = begin, end
        if silence is not None:
            yield silence


@dataclass
class Judgement:
    """What was wrong, and how often happened what may happen."""

    wrong: list[str] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)


def judge(
    lives: Mapping[str, Life],
    statuses: Mapping[str, Sequence[Look]],
    events: Mapping[str, Sequence[Look]],
    deeds: Deeds,
) -> Judgement:
    """Judge all that was seen of some tasks, by their ids."""
    judgement = Judgement()
    for task_id, life in lives.items():
        seen = statuses.get(task_id, ())
        for text in _wrong_steps(seen, life, judgement.counted):
            judgement.wrong.append(f"task {task_id}: {text}")
        told = [*seen, *events.get(task_id, ())]
        for text in (*_wrong_failures(told, life, deeds), *_wrong_corrections(told)):
            judgement.wrong.append(f"task {task_id}: {text}")
    return judgement


def supervisor_of(worker: str) -> int:
    """Return the process id of the supervisor of a worker process: host.ID.token.number."""
    return int(worker.rsplit(".", 3)[1])


def _wrong_steps(seen: Sequence[Look], life: Life, counted: Counter[str]) -> Iterator[str]:
    for before, after in pairwise(seen):
        if _is_forward(before, after):
            continue
        if _is_taken_back(before, after, life):
            counted["starts taken back"] += 1
        elif _is_corrected(before, after):
            counted["presumed losses corrected"] += 1
        else:
            yield f"{before}, and then {after}"


def _is_forward(before: Look, after: Look) -> bool:
    if after.attempt != before.attempt:
        return after.attempt > before.attempt
    return _RANKS[after.status] > _RANKS[before.status] or after.status == before.status == "STARTED"


def _is_taken_back(before: Look, after: Look, life: Life) -> bool:
    if before.attempt != after.attempt or (before.status, after.status) != ("STARTED", "PENDING"):
        return False
    return not any(moment < before.at for moment, _ in life.begun)


def _is_corrected(before: Look, after: Look) -> bool:
    return (
        before.attempt == after.attempt
        and before.error_type == WORKER_LOST
        and _RANKS[after.status] == 2
        and after.error_type != WORKER_LOST
    )


def _wrong_corrections(seen: Sequence[Look]) -> Iterator[str]:
    """Tell of deaths that the end of the same attempt contradicts, each once."""
    deaths = {
        (look.attempt, look.message): look
        for look in seen
        if look.error_type == WORKER_LOST and not look.message.startswith(_SILENT)
    }
    ends = {look.attempt: look for look in seen if _RANKS[look.status] == 2 and look.error_type != WORKER_LOST}
    for death in deaths.values():
        if death.attempt in ends:
            yield f"{death}, and yet {ends[death.attempt]}"


def _wrong_failures(seen: Sequence[Look], life: Life, deeds: Deeds) -> Iterator[str]:
    """Tell of failures without a cause, each once."""
    failures = {(look.error_type, look.message): look for look in seen if look.status == "FAILURE"}
    for failure in failures.values():
        if not _has_cause(failure, seen, life, deeds):
            yield f"no reason for {failure}; it began {list(life.begun)}"


def _has_cause(failure: Look, seen: Iterable[Look], life: Life, deeds: Deeds) -> bool:
    if life.is_late:
        counted = len(life.begun) + _doubtful_starts(seen, life, deeds)
        return failure.error_type == _TOO_OFTEN and counted >= deeds.max_deliveries
    if failure.error_type != WORKER_LOST:
        return False
    supervisor = supervisor_of(failure.worker)
    if failure.message.startswith(_SILENT):
        return deeds.was_silent(supervisor, failure.at)
    if life.begun:
        return any(process in deeds.killed for _, process in life.begun)
    return supervisor in deeds.killed


def _doubtful_starts(seen: Iterable[Look], life: Life, deeds: Deeds) -> int:
    """Count the starts of which nobody can say whether their bodies would have begun: their supervisors were killed."""
    workers = {look.started_at: look.worker for look in seen if look.status == "STARTED"}
    return sum(
        begin <= deeds.killed.get(supervisor_of(workers[begin]), math.inf) < end
        and not any(begin <= moment < end for moment, _ in life.begun)
        for begin, end in pairwise([*sorted(workers), math.inf])
    )
