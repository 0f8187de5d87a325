"""A child of the supervisor: its role, its process, the line to it, and what it has in hand."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os

from limetask.message import Begun
from limetask_worker.child_process import ChildProcess, start_process
from limetask_worker.control import ChildOptions, Control
from limetask_worker.marks import Held, Marks, open_memory
from limetask_worker.outbox import Outbox, open_outbox

# A process cuts off by itself what exceeds its time limit. One that has not done so by then is held up as a whole, as
# by a C function that keeps Python's global lock.
_HELD_UP_SECONDS = 3.0


class Role(enum.StrEnum):
    """What a child process does; the value is the module that it runs."""

    TASKS = "limetask_worker.child"
    EVENTS = "limetask_worker.event_runner"
    RECORDER = "limetask_worker.recorder"

    @property
    def label(self) -> str:
        return _LABELS[self]


_LABELS = {Role.TASKS: "task process", Role.EVENTS: "event process", Role.RECORDER: "recorder"}


class Child:
    """One child process. `kill_reason` is why it was killed from here; `is_done` once it has said that it is."""

    def __init__(
        self,
        role: Role,
        options: ChildOptions,
        marks: Marks,
        outbox: Outbox,
        process: ChildProcess,
        control: Control,
    ) -> None:
        self.role = role
        self.options = options
        self.control = control
        self.ready = asyncio.Event()
        self.is_needed = True
        self.is_done = False
        self.has_failed = False
        self.kill_reason: str | None = None
        self._marks = marks
        self._outbox = outbox
        self._process = process

    @classmethod
    async def start(cls, role: Role, options: ChildOptions) -> Child:
        """Start a child. Raises OSError if that cannot be done now."""
        with contextlib.ExitStack() as opened, contextlib.ExitStack() as if_it_fails:
            marks_memory, outbox_memory = (_closed_later(opened, open_it()) for open_it in (open_memory, open_outbox))
            marks = if_it_fails.enter_context(contextlib.closing(Marks(marks_memory)))
            outbox = if_it_fails.enter_context(contextlib.closing(Outbox(outbox_memory)))
            process, control = await start_process(role.value, [marks_memory, outbox_memory])
            if_it_fails.pop_all()
        control.send_options(options)
        return cls(role, options, marks, outbox, process, control)

    @property
    def is_ready(self) -> bool:
        """True from when it is at work."""
        return self.ready.is_set()

    @property
    def name(self) -> str:
        return f"{self.role.label} {self.options.worker}"

    async def ended(self) -> int:
        """Return the exit code, negative for a signal, once the process has ended."""
        return await self._process.wait()

    def unreported(self) -> list[bytes]:
        """Return the events of the ends that the broker had not confirmed to it when it ended."""
        return self._marks.ends() + self._outbox.read()

    def held(self) -> list[Held] | None:
        return self._marks.read(_HELD_UP_SECONDS)

    def held_ids(self) -> list[str] | None:
        held = self.held()
        return None if held is None else [one.task_id for one in held]

    def begun(self) -> list[Begun] | None:
        held = self.held()
        return (
            None if held is None else [Begun(one.task_id, one.attempt, one.exceeded) for one in held if one.has_begun]
        )

    def kill(self, reason: str) -> None:
        if not self._process.has_ended:
            self.kill_reason = self.kill_reason or reason
            self._process.kill()

    def close(self) -> None:
        self.control.close()
        self._marks.close()
        self._outbox.close()


def _closed_later(opened: contextlib.ExitStack, descriptor: int) -> int:
    opened.callback(os.close, descriptor)
    return descriptor
