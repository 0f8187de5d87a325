"""The supervisor: starts the child processes, watches them, tells of those that die, and starts them anew.

It imports no code of the user's, so nothing in it can hang or crash with a task.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import secrets
import signal
import socket
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from limetask.amqp import Connection
from limetask.message import Alive, WorkerLost
from limetask.settings import Settings
from limetask.topology import Names
from limetask_worker import signals
from limetask_worker.child_process import LAST_WORDS_SECONDS, STOPPED_TOO_SOON, reason_of_death
from limetask_worker.control import Asked, Done, Failed, Needless, Ready
from limetask_worker.failed_starts import FailedStarts, hint_if_folder_is_gone
from limetask_worker.logs import log_start_failure
from limetask_worker.memory_kills import MemoryKills
from limetask_worker.news import News
from limetask_worker.plan import Plan
from limetask_worker.process import CUT_OFF
from limetask_worker.process_hooks import STOPPING_SECONDS
from limetask_worker.supervised import Child, Role

logger = logging.getLogger(__name__)

# A child gets this much longer than its grace time to publish and ack what ended, and for its hooks.
_SETTLE_SECONDS = 15.0 + STOPPING_SECONDS
# If the worker is to stop at once: to publish the ends of what has ended, and to record those and what was cut off.
_HURRIED_SECONDS = {Role.TASKS: 1.0, Role.EVENTS: 1.0, Role.RECORDER: 5.0}
_FIRST_RESTART_SECONDS = 0.2
_LAST_RESTART_SECONDS = 30.0
_STABLE_SECONDS = 60.0
_WATCH_EVERY_SECONDS = 1.0
# A recorder that has died while all stops gets this long to be at work again.
_READY_SECONDS = 10.0
# A signal for the whole worker has reached the supervisor by then; one that has not was meant for a single child.
_ALONE_SECONDS = 1.0


class Supervisor:
    """Runs a plan until it is asked to stop. `on_ready` gets the children's facts once all are at work."""

    def __init__(self, settings: Settings, plan: Plan, on_ready: Callable[[Mapping[str, Any]], None]) -> None:
        self._plan = plan
        self._on_ready = on_ready
        self._worker_timeout = settings.worker_timeout
        self._news = News(Connection(settings, f"supervisor {socket.gethostname()}"), Names(settings.namespace))
        self._worker_prefix = f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(3)}"
        self._serial = 0
        self._children: set[Child] = set()
        self._stopping = asyncio.Event()
        self._all_told = asyncio.Event()
        self._hurrying = asyncio.Event()
        self._memory_kills = MemoryKills()
        self._failure: str | None = None
        self._failed_starts = FailedStarts()
        self._cut_off = False
        self._announced = False
        self._wanted = len(plan.roles)
        self._facts: dict[str, Any] = {}

    async def run(self) -> int:
        """Keep the children running; return the exit code: 0, or 1 if it could not start or had to cut tasks off.

        On a stop the recorder is the last, so that it records how the last tasks end.
        """
        signals.catch(
            {
                **dict.fromkeys((signal.SIGTERM, signal.SIGINT), self._on_signal),
                signal.SIGHUP: self._on_hangup,
                signal.SIGQUIT: self._on_quit,
                **dict.fromkeys(signals.HARMLESS, signals.do_nothing),
            }
        )
        watching = [
            self._go_on_with(self._news.give_signs_of_life(self._worker_timeout, self._sign_of_life)),
            self._go_on_with(self._watch_time_limits()),
            self._go_on_with(self._memory_kills.watch()),
        ]
        recorders = [self._go_on_with(self._keep(role)) for role in self._plan.roles if role is Role.RECORDER]
        others = [self._go_on_with(self._keep(role)) for role in self._plan.roles if role is not Role.RECORDER]
        await self._stopping.wait()
        await asyncio.gather(*others, return_exceptions=True)
        for watch in watching:
            watch.cancel()
        await self._news.finish(in_a_hurry=self._hurrying.is_set())
        self._all_told.set()
        await asyncio.gather(*recorders, return_exceptions=True)
        await self._news.close()
        if self._failure is not None:
            log_start_failure(logger, self._failure)
        return 1 if self._failure is not None or self._cut_off else 0

    def _go_on_with(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run what goes on until the worker is stopped; without it, should it end by an error, the worker must stop."""
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._stop_on_error)
        return task

    def _stop_on_error(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.critical("the supervisor failed as it should not; please report this", exc_info=error)
            self._fail(f"the supervisor failed as it should not: {error!r}")

    def _sign_of_life(self) -> Alive:
        return Alive(datetime.now(UTC), {child.options.worker: child.held_ids() for child in self._task_children})

    @property
    def _task_children(self) -> list[Child]:
        return [child for child in self._children if child.role is Role.TASKS]

    async def _watch_time_limits(self) -> None:
        while True:
            for child in self._children:
                exceeding = [held for held in child.held() or () if held.exceeded is not None]
                if exceeding:
                    is_task = child.role is Role.TASKS
                    what = f"task {exceeding[0].task_id}" if is_task else "an event handler"
                    logger.error("%s has exceeded its time limit and holds up its process", what)
                    other = "another task" if is_task else "an event handler"
                    child.kill(f"the worker process was killed: {other} had exceeded its time limit and held it up")
            await asyncio.sleep(_WATCH_EVERY_SECONDS)

    def _on_signal(self) -> None:
        if not self._stopping.is_set():
            grace = self._plan.options.grace
            logger.info("stopping: running tasks get %g s to end (send the signal again to stop at once)", grace)
            self._stopping.set()
        else:
            self._on_quit()

    def _on_hangup(self) -> None:
        """Stop, once: a terminal that is closed sends it more than once, systemd beside SIGTERM."""
        if not self._stopping.is_set():
            self._on_signal()

    def _on_quit(self) -> None:
        """Stop at once, in good order: what has ended is told, and so is what is cut off."""
        if not self._hurrying.is_set():
            logger.warning("stopping at once: running tasks are cut off")
            self._hurrying.set()
        self._stopping.set()

    def _note_failure(self, child: Child, reason: str) -> None:
        """Stop the worker if a child of this role could never start, or none can for a while; else try again."""
        if self._failed_starts.may_pass(child.role) and self._announced:
            logger.error("%s could not start, and is tried again: %s", child.name, reason)
        else:
            child.has_failed = True
            self._fail(reason + hint_if_folder_is_gone())

    def _note_ready(self, child: Child, report: Ready) -> None:
        child.ready.set()
        self._failed_starts.note_success(child.role)
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
        is_wanted = True
        while is_wanted and not self._may_stop(role).is_set():
            started = asyncio.get_running_loop().time()
            child = await self._start(role)
            died = child is None or await self._watch(child)
            is_wanted = child is None or (child.is_needed and not child.has_failed)
            if died and is_wanted:
                stable = asyncio.get_running_loop().time() - started > _STABLE_SECONDS
                failures = 1 if stable else failures + 1
                await self._pause(role, failures)

    def _may_stop(self, role: Role) -> asyncio.Event:
        """Return what is set when children of this role are to stop."""
        return self._all_told if role is Role.RECORDER else self._stopping

    async def _start(self, role: Role) -> Child | None:
        """Start a child; None if that cannot be done now, as when too many files are open, or processes run."""
        self._serial += 1
        options = replace(self._plan.options, worker=f"{self._worker_prefix}.{self._serial}")
        try:
            child = await Child.start(role, options)
        except (OSError, RuntimeError, MemoryError) as exc:
            logger.error(
                "no %s could be started: %s; it is tried again (the limits of open files, processes and memory: "
                "`ulimit -a`, or those of the container)",
                *(role.label, exc),
            )
            return None
        self._children.add(child)
        return child

    async def _watch(self, child: Child) -> bool:
        """Follow a child to its end; return True if it died of itself."""
        listening = self._go_on_with(self._listen(child))
        listening.add_done_callback(lambda _: self._end_soon(child))
        stopping = self._go_on_with(self._stop_in_turn(child))
        exit_code = await child.ended()
        await asyncio.wait([listening], timeout=LAST_WORDS_SECONDS)
        stopping.cancel()
        listening.cancel()
        died = self._note_end(child, exit_code)
        child.close()
        return died

    async def _listen(self, child: Child) -> None:
        while (report := await child.control.receive_report()) is not None:
            match report:
                case Failed():
                    self._note_failure(child, report.reason)
                case Needless():
                    child.is_needed = False
                case Ready():
                    self._note_ready(child, report)
                case Asked():
                    asyncio.get_running_loop().call_later(_ALONE_SECONDS, self._replace, child)
                case Done():
                    child.is_done = True

    def _end_soon(self, child: Child) -> None:
        """Kill a child that does not end although its line has: it cannot be told anything, nor do its work.

        As when a body has replaced the program of its process, or something at its end hangs.
        """
        reason = "the worker process did not end, and had closed its line to the supervisor"
        asyncio.get_running_loop().call_later(_SETTLE_SECONDS, child.kill, reason)

    def _replace(self, child: Child) -> None:
        """Stop a child that alone was asked to; another is started then."""
        if not self._stopping.is_set() and child in self._children:
            logger.info("%s got a signal to stop: another takes its place", child.name)
            child.control.send_stop()

    def _note_end(self, child: Child, exit_code: int) -> bool:
        """Tell what the end of a child means, and return True if it died of itself."""
        self._children.discard(child)
        died = exit_code != 0 or not child.is_done
        if not child.is_needed:
            self._wanted -= 1
            self._announce_if_complete()
        reason = child.kill_reason or reason_of_death(exit_code, memory_was_short=self._memory_kills.are_recent())
        if child.role is Role.TASKS and child.is_ready and (died or child.held()):
            lost = WorkerLost(child.options.worker, reason, datetime.now(UTC), child.begun())
            self._news.tell_of_death(lost, child.unreported())
        if died and not child.has_failed:
            is_stopping = self._may_stop(child.role).is_set()
            self._cut_off |= exit_code == CUT_OFF or is_stopping
            level = logging.WARNING if is_stopping else logging.ERROR
            logger.log(level, "%s died: %s%s", child.name, reason, "" if is_stopping else "; starting another")
        return died

    def _fail(self, reason: str) -> None:
        if self._failure is None:
            self._failure = reason
        self._stopping.set()

    async def _pause(self, role: Role, failures: int) -> None:
        seconds = min(_LAST_RESTART_SECONDS, _FIRST_RESTART_SECONDS * 2 ** (failures - 1)) * random.uniform(0.8, 1.2)
        if seconds > 1:
            logger.warning("%d failures in a row: the next start of a %s is in %.0f s", failures, role.label, seconds)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._may_stop(role).wait()

    async def _stop_in_turn(self, child: Child) -> None:
        """Stop a child when it is its role's turn, and kill it if that takes too long."""
        await self._may_stop(child.role).wait()
        if child.role is Role.RECORDER and self._announced:
            await self._unless_hurrying(child.ready.wait(), _READY_SECONDS)  # it is to record how the last tasks ended
        child.control.send_stop()
        await self._unless_hurrying(child.ended(), child.options.grace + _SETTLE_SECONDS)
        if self._hurrying.is_set():
            await asyncio.wait([asyncio.ensure_future(child.ended())], timeout=_HURRIED_SECONDS[child.role])
        child.kill(STOPPED_TOO_SOON)

    async def _unless_hurrying(self, work: Coroutine[Any, Any, object], seconds: float) -> None:
        """Await something for so long, and no longer when the worker is to stop at once."""
        waiting = [asyncio.ensure_future(work), asyncio.ensure_future(self._hurrying.wait())]
        try:
            await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()
