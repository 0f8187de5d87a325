"""The supervisor: starts the child processes, watches them, tells of those that die, and starts them anew.

It imports no code of the user's, so nothing in it can hang or crash with a task.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import os
import random
import secrets
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from limetask.amqp import Connection
from limetask.message import Alive, Begun, Envelope, WorkerLost
from limetask.records import encode_alive, encode_worker_lost
from limetask.settings import Settings
from limetask.topology import Names
from limetask_worker.control import ChildOptions, Control, Failed, Needless, Ready
from limetask_worker.marks import Held, Marks, open_memory
from limetask_worker.outbox import Outbox, UnreportedEnd, open_outbox
from limetask_worker.process import CUT_OFF, STOPPED_TOO_SOON, reason_of_death, start_process
from limetask_worker.signs_of_life import give_signs_of_life

logger = logging.getLogger(__name__)

# A child gets this much longer than its grace time to publish and ack what ended.
_SETTLE_SECONDS = 15.0
_TELL_SECONDS = 10.0
# What a process published last is on its way to the broker when it dies: ends that are told there first are no losses.
_LAST_WORDS_SECONDS = 0.3
_TELL_IN_A_HURRY_SECONDS = 2.0
_FIRST_RESTART_SECONDS = 0.2
_LAST_RESTART_SECONDS = 30.0
_STABLE_SECONDS = 60.0
# A process cuts off by itself what exceeds its time limit. One that has not done so by then is held up as a whole, as
# by a C function that keeps Python's global lock.
_HELD_UP_SECONDS = 3.0
_WATCH_EVERY_SECONDS = 1.0


class Role(enum.StrEnum):
    """What a child process does; the value is the module that it runs."""

    TASKS = "limetask_worker.child"
    EVENTS = "limetask_worker.event_runner"
    RECORDER = "limetask_worker.recorder"


_LABELS = {Role.TASKS: "task process", Role.EVENTS: "event process", Role.RECORDER: "recorder"}


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


class Supervisor:
    """Runs a plan until it is asked to stop. `on_ready` gets the children's facts once all are at work."""

    def __init__(self, settings: Settings, plan: Plan, on_ready: Callable[[Mapping[str, Any]], None]) -> None:
        self._plan = plan
        self._on_ready = on_ready
        self._names = Names(settings.namespace)
        self._worker_timeout = settings.worker_timeout
        self._connection = Connection(settings, f"supervisor {socket.gethostname()}")
        self._worker_prefix = f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(3)}"
        self._serial = 0
        self._children: set[_Child] = set()
        self._stopping = asyncio.Event()
        self._hurrying = asyncio.Event()
        self._telling: set[asyncio.Future[None]] = set()
        self._failure: str | None = None
        self._cut_off = False
        self._announced = False
        self._wanted = len(plan.roles)
        self._facts: dict[str, Any] = {}

    async def run(self) -> int:
        """Keep the children running; return the exit code: 0, or 1 if it could not start or had to cut tasks off."""
        self._catch_signals()
        keepers = [asyncio.ensure_future(self._keep(role)) for role in self._plan.roles]
        watching = [
            asyncio.ensure_future(
                give_signs_of_life(
                    self._connection, self._names.results_queue, self._worker_timeout, self._sign_of_life
                )
            ),
            asyncio.ensure_future(self._watch_time_limits()),
        ]
        await self._stopping.wait()
        await asyncio.gather(self._stop_children(Role.TASKS), self._stop_children(Role.EVENTS))
        for watch in watching:
            watch.cancel()
        await self._finish_telling()  # so that our recorder still records it
        await self._stop_children(Role.RECORDER)
        await asyncio.wait(keepers)
        await self._connection.close()
        if self._failure is not None:
            logger.critical("%s", self._failure)
        return 1 if self._failure is not None or self._cut_off else 0

    def _sign_of_life(self) -> Envelope:
        return encode_alive(
            Alive(datetime.now(UTC), {child.options.worker: _ids(child) for child in self._task_children})
        )

    @property
    def _task_children(self) -> list[_Child]:
        return [child for child in self._children if child.role is Role.TASKS]

    async def _watch_time_limits(self) -> None:
        while True:
            for child in self._task_children:
                exceeding = [held for held in child.held() or () if held.exceeded is not None]
                if exceeding:
                    logger.error("task %s has exceeded its time limit and holds up its process", exceeding[0].task_id)
                    child.kill("the worker process was killed: another task had exceeded its time limit and held it up")
            await asyncio.sleep(_WATCH_EVERY_SECONDS)

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        if not self._stopping.is_set():
            grace = self._plan.options.grace
            logger.info("stopping: running tasks get %g s to end (send the signal again to stop at once)", grace)
            self._stopping.set()
        else:
            logger.warning("stopping at once")
            self._hurrying.set()

    def _note_ready(self, child: _Child, report: Ready) -> None:
        child.is_ready = True
        self._facts.update(report.facts)
        self._announce_if_complete()

    def _announce_if_complete(self) -> None:
        everyone = len(self._children) == self._wanted and all(one.is_ready for one in self._children)
        if everyone and not self._announced:
            self._announced = True
            self._on_ready(self._facts)

    async def _keep(self, role: Role) -> None:
        """Run children of one role, one after the other."""
        failures = 0
        is_needed = True
        while is_needed and not self._stopping.is_set():
            started = asyncio.get_running_loop().time()
            child = await self._start(role)
            died = await self._watch(child)
            is_needed = child.is_needed
            if died:
                stable = asyncio.get_running_loop().time() - started > _STABLE_SECONDS
                failures = 1 if stable else failures + 1
                await self._pause(failures)

    async def _start(self, role: Role) -> _Child:
        self._serial += 1
        options = replace(self._plan.options, worker=f"{self._worker_prefix}.{self._serial}")
        child = await _Child.start(role, options)
        self._children.add(child)
        if self._stopping.is_set():
            child.control.send_stop()
        return child

    async def _watch(self, child: _Child) -> bool:
        """Follow a child to its end; return True if it died of itself."""
        while (report := await child.control.receive_report()) is not None:
            match report:
                case Failed():
                    self._fail(report.reason)
                case Needless():
                    child.is_needed = False
                case Ready():
                    self._note_ready(child, report)
        exit_code = await child.ended()
        self._children.discard(child)
        if not child.is_needed:
            self._wanted -= 1
            self._announce_if_complete()
        reason = child.kill_reason or reason_of_death(exit_code)
        if child.role is Role.TASKS and child.is_ready and (exit_code or child.held()):
            self._tell(WorkerLost(child.options.worker, reason, datetime.now(UTC), _begun(child)), child.unreported())
        child.close()
        if exit_code == 0:
            return False
        self._cut_off |= exit_code == CUT_OFF or self._stopping.is_set()
        if not self._stopping.is_set():
            logger.error("%s %s died: %s; starting another", child.label, child.options.worker, reason)
        return True

    def _fail(self, reason: str) -> None:
        if self._failure is None:
            self._failure = reason
        self._stopping.set()

    def _tell(self, lost: WorkerLost, ends: Sequence[UnreportedEnd]) -> None:
        """Report a task process's last ends and its own one, however long the broker takes to come up."""
        telling = asyncio.ensure_future(self._publish_lost(lost, ends))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def _publish_lost(self, lost: WorkerLost, ends: Sequence[UnreportedEnd]) -> None:
        await asyncio.sleep(_LAST_WORDS_SECONDS)
        for end in ends:  # first, so that none of them counts as lost
            await self._connection.publish_until_confirmed(
                self._names.completions_exchange, end.routing_key, end.envelope
            )
        await self._connection.publish_until_confirmed("", self._names.results_queue, encode_worker_lost(lost))

    async def _finish_telling(self) -> None:
        if not self._telling:
            return
        seconds = _TELL_IN_A_HURRY_SECONDS if self._hurrying.is_set() else _TELL_SECONDS
        _, untold = await asyncio.wait(self._telling, timeout=seconds)
        if untold:
            logger.critical("the broker could not be told of %d dead task processes", len(untold))

    async def _pause(self, failures: int) -> None:
        seconds = min(_LAST_RESTART_SECONDS, _FIRST_RESTART_SECONDS * 2 ** (failures - 1)) * random.uniform(0.8, 1.2)
        if seconds > 1:
            logger.warning("%d deaths in a row: the next start is in %.0f s", failures, seconds)
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _stop_children(self, role: Role) -> None:
        children = [child for child in self._children if child.role is role]
        await asyncio.gather(*(self._stop_child(child) for child in children))

    async def _stop_child(self, child: _Child) -> None:
        child.control.send_stop()
        hurry = asyncio.ensure_future(self._hurrying.wait())
        gone = asyncio.ensure_future(child.ended())
        patience = child.options.grace + _SETTLE_SECONDS
        await asyncio.wait([gone, hurry], timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if not gone.done():
            child.kill(STOPPED_TOO_SOON)
        await gone
        hurry.cancel()


def _ids(child: _Child) -> list[str] | None:
    held = child.held()
    return None if held is None else [one.task_id for one in held]


def _begun(child: _Child) -> list[Begun] | None:
    held = child.held()
    return None if held is None else [Begun(one.task_id, one.attempt, one.exceeded) for one in held if one.has_begun]


class _Child:
    """One child process, the line to it, and what it has in hand. `kill_reason` is why it was killed from here."""

    def __init__(
        self,
        role: Role,
        options: ChildOptions,
        marks: Marks,
        outbox: Outbox,
        process: asyncio.subprocess.Process,
        control: Control,
    ) -> None:
        self.role = role
        self.options = options
        self.control = control
        self.is_ready = False
        self.is_needed = True
        self.kill_reason: str | None = None
        self._marks = marks
        self._outbox = outbox
        self._process = process

    @classmethod
    async def start(cls, role: Role, options: ChildOptions) -> _Child:
        memory = open_memory()
        outbox = open_outbox()
        try:
            child = cls(
                role, options, Marks(memory), Outbox(outbox), *await start_process(role.value, [memory, outbox])
            )
        finally:
            os.close(memory)
            os.close(outbox)
        child.control.send_options(options)
        return child

    @property
    def label(self) -> str:
        return _LABELS[self.role]

    async def ended(self) -> int:
        """Return the exit code, negative for a signal, once the process has ended."""
        exit_code = await self._process.wait()
        self.control.close()
        return exit_code

    def unreported(self) -> list[UnreportedEnd]:
        return self._outbox.read()

    def held(self) -> list[Held] | None:
        return self._marks.read(_HELD_UP_SECONDS)

    def kill(self, reason: str) -> None:
        if self._process.returncode is None:
            self.kill_reason = self.kill_reason or reason
            self._process.kill()

    def close(self) -> None:
        self._marks.close()
        self._outbox.close()
