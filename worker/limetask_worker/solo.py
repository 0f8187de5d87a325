"""Runs one task in a process of its own.

For a late-ack task that was running when its worker was lost: should it be the one that takes workers down, it now goes
down alone.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, NoReturn

from limetask.amqp import Delivery
from limetask.codec import MSGPACK, decode_task
from limetask.errors import ConfigurationError
from limetask.message import Envelope, TaskIdentity
from limetask.registry import declared_tasks, find_task
from limetask.settings import current_settings
from limetask.status import ErrorInfo, Status
from limetask_worker import signals
from limetask_worker.child_process import LAST_WORDS_SECONDS, ChildProcess, reason_of_death, start_process
from limetask_worker.control import ChildOptions, Control
from limetask_worker.end_line import log_end
from limetask_worker.executor import Executor
from limetask_worker.loading import LoadingError, load_factory
from limetask_worker.log_thread import WORK_FIELD, log_thread
from limetask_worker.logs import configure_logging, log_start_failure
from limetask_worker.marks import Mark
from limetask_worker.memory_kills import MemoryKills
from limetask_worker.preparing import prepare
from limetask_worker.process import (
    control_socket_of_this_process,
    leave_signals_to_parent,
    new_runner,
    spare_other_signals,
)
from limetask_worker.process_hooks import STOPPING_SECONDS, process_hooks
from limetask_worker.streams import lend_streams
from limetask_worker.work import Outcome, Work

logger = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 0.5
_LAST_PAUSE_SECONDS = 5.0
# A process whose import or hook does not end is killed.
_READY_SECONDS = 300.0
# One that has answered, or that nobody waits for any more, ends by itself unless something holds it up as a whole.
_END_SECONDS = STOPPING_SECONDS + 5.0


class SoloDiedError(Exception):
    """The process has ended before its task had."""


class SoloNotStartedError(Exception):
    """There is no process in which the task could begin, and has not been for a while."""


@dataclass(frozen=True, slots=True)
class SoloRunner:
    """Starts such processes; `options` are those of the task process that it works for.

    What does not begin for `patience` seconds is given up.
    """

    options: ChildOptions
    patience: float = 60.0

    async def run(self, work: Work, begins: Callable[[], None]) -> Outcome:
        """Run the body elsewhere and return how it ended; `begins` is called just before it begins.

        Raises SoloDiedError if the process died after that, with the reason, and SoloNotStartedError if none got so
        far: users' code cannot be imported now, or no process or thread can be started.
        """
        process, control = await self._ready_process(work)
        begins()
        kills = MemoryKills()
        looking = asyncio.ensure_future(kills.watch())
        try:
            control.send({"begin": True})
            answer = await _answer_of(process, control)
        finally:
            looking.cancel()
            _let_end(process, control)
        if answer is None:
            exit_code = await process.wait()
            raise SoloDiedError(reason_of_death(exit_code, memory_was_short=kills.are_recent()))
        return _decode_outcome(answer)

    async def _ready_process(self, work: Work) -> tuple[ChildProcess, Control]:
        """Return a process that has only to begin the body, as soon as there can be one."""
        give_up_at = time.monotonic() + self.patience
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return await self._start(work)
            except (OSError, MemoryError, _NotReadyError) as exc:
                problem = f"no process for a lone task could be started: {exc}"
                if time.monotonic() > give_up_at:
                    raise SoloNotStartedError(problem) from exc
                logger.error("%s; it is tried again in %g s", problem, pause, extra={WORK_FIELD: work})
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LAST_PAUSE_SECONDS)

    async def _start(self, work: Work) -> tuple[ChildProcess, Control]:
        process, control = await start_process("limetask_worker.solo")
        answer = None
        try:
            control.send_options(self.options)
            control.send(_encode_work(work))
            async with asyncio.timeout(_READY_SECONDS):
                answer = await _answer_of(process, control)
        except TimeoutError:
            process.kill()
        finally:
            if answer is None:
                _let_end(process, control)
        if answer is None:
            raise _NotReadyError(reason_of_death(await process.wait()))
        return process, control


class _NotReadyError(Exception):
    """A process has ended before it could begin the body."""


def _let_end(process: ChildProcess, control: Control) -> None:
    """Let a process end with its line, if its body has not: what it does before its end keeps nobody waiting."""
    control.close()
    ending = asyncio.ensure_future(_see_to_its_end(process))
    _ending.add(ending)
    ending.add_done_callback(_ending.discard)


_ending: set[asyncio.Future[None]] = set()


async def _answer_of(process: ChildProcess, control: Control) -> dict[str, Any] | None:
    receiving = asyncio.ensure_future(control.receive())
    ended = asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait([receiving, ended], return_when=asyncio.FIRST_COMPLETED)
        if not receiving.done():
            await asyncio.wait([receiving], timeout=LAST_WORDS_SECONDS)
        return receiving.result() if receiving.done() else None
    finally:
        receiving.cancel()
        ended.cancel()


async def _see_to_its_end(process: ChildProcess) -> None:
    try:
        async with asyncio.timeout(_END_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()


def _encode_work(work: Work) -> dict[str, Any]:
    body = base64.b64encode(work.delivery.envelope.body).decode()
    started_at = None if work.started_at is None else work.started_at.isoformat()
    return {"identity": asdict(work.message.identity), "body": body, "started_at": started_at}


def _decode_outcome(fields: dict[str, Any]) -> Outcome:
    return Outcome(
        status=Status(fields["status"]),
        result=None if fields["result"] is None else fields["result"].encode(),
        error=None if fields["error"] is None else ErrorInfo(**fields["error"]),
        finished_at=datetime.fromisoformat(fields["finished_at"]),
        refusal=fields["refusal"],
    )


def _encode_outcome(outcome: Outcome) -> dict[str, Any]:
    result = None if outcome.result is None else outcome.result.decode()
    return {
        "status": outcome.status,
        "result": result,
        "error": outcome.error,
        "finished_at": outcome.finished_at,
        "refusal": outcome.refusal,
    }


def run_solo() -> NoReturn:
    """Run the task that the control line brings, tell how it ended, and end this process."""
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    exit_code = 0
    with new_runner() as runner:
        control, options = runner.run(_open(control_socket_of_this_process()))
        try:
            prepare(options.packages, declared_tasks)
            runner.run(_run_task(control))
        except (LoadingError, ConfigurationError) as exc:
            log_start_failure(logger, str(exc))
            exit_code = 1
        signals.hold_back()
    signals.go_on()
    process_hooks.end_process(exit_code)


async def _open(control_socket: socket.socket) -> tuple[Control, ChildOptions]:
    control = await Control.open(control_socket)
    options = await control.receive_options()
    configure_logging(options.log_format, options.log_level, f"{options.worker} solo")
    lend_streams()
    signals.restore_in_forks()
    spare_other_signals()
    leave_signals_to_parent(_go_on)
    log_thread.start()
    return control, options


async def _run_task(control: Control) -> None:
    """Run a task until it ends, or its line does: then nobody waits for it any more."""
    request = await control.receive()
    if request is None:
        return
    settings = current_settings()
    executor = Executor(1, load_factory(settings.application_factory), settings.max_result_bytes)
    work = _decode_work(request)
    executor.start(coroutines=work.declaration.is_async)
    leave_signals_to_parent(_go_on)
    control.send({"ready": True})
    if await control.receive() is None:
        return
    running = executor.run(work)
    unwanted = asyncio.ensure_future(control.receive())
    waiting: list[asyncio.Future[Any]] = [running, unwanted]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        log_end(work, running.result())
        control.send(_encode_outcome(running.result()))
        await control.flush()


def _go_on() -> None:
    """Its parent ends it when that is to be."""


def _decode_work(request: dict[str, Any]) -> Work:
    identity = TaskIdentity(**request["identity"])
    envelope = Envelope(base64.b64decode(request["body"]), MSGPACK)
    declaration = find_task(identity.task_name)
    if declaration is None:
        raise LookupError(f"no task {identity.task_name!r}")
    work = Work(Delivery(0, 0, "", False, envelope), decode_task(identity, envelope), declaration)
    work.mark = Mark()
    if request["started_at"] is not None:
        work.started_at = datetime.fromisoformat(request["started_at"])
    return work


def _end_with_parent(parent: int) -> None:
    """End this process some time after its parent is gone, whatever keeps it from ending with its line."""
    while os.getppid() == parent:
        threading.Event().wait(0.5)
    threading.Event().wait(_END_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    run_solo()
