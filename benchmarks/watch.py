"""Samples what all processes take, over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.processes import MIB, family, proportional_bytes
from benchmarks.services import Services
from benchmarks.systems.limetask import process_role
from benchmarks.worker import Worker


@dataclass(frozen=True)
class Taken:
    """What one process has, or what the processes of a server have together."""

    mib: float
    descriptors: int


def take(services: Services, worker: Worker, others: dict[str, int]) -> dict[str, Taken]:
    """Return what each process of a limetask worker has, each of the servers, and `others`, named by their ids."""
    numbered: dict[str, int] = {}
    found = {}
    for usage in sorted(family(worker.pid, process_role), key=lambda usage: usage.pid):
        numbered[usage.role] = numbered.get(usage.role, 0) + 1
        name = usage.role if usage.role != "task process" else f"{usage.role} {numbered[usage.role]}"
        found[name] = Taken(usage.resident_bytes / MIB, usage.descriptors)
    for name, pid in (services.server_pids() | others).items():
        usages = family(pid, lambda _: "")
        # The processes of a server share most of their memory.
        mib = sum(proportional_bytes(usage.pid) for usage in usages) / MIB
        found[name] = Taken(mib, sum(usage.descriptors for usage in usages))
    return found


def series(samples: Sequence[dict[str, Taken]], name: str) -> list[Taken]:
    """Return one process's samples."""
    return [sample[name] for sample in samples if name in sample]


def middle(values: Sequence[float]) -> float:
    """Return the median, 0 for nothing."""
    return median(values) if values else 0.0
