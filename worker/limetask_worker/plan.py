"""Which processes a worker has."""

from __future__ import annotations

from dataclasses import dataclass

from limetask_worker.control import ChildOptions
from limetask_worker.supervised import Role


@dataclass(frozen=True, slots=True)
class Plan:
    """Which children a supervisor keeps running."""

    task_processes: int
    recorder: bool
    options: ChildOptions
    events: bool = False

    @property
    def roles(self) -> list[Role]:
        return [Role.RECORDER] * self.recorder + [Role.EVENTS] * self.events + [Role.TASKS] * self.task_processes
