"""Runs the bodies of tasks: plain functions in threads, `async def` on a loop of their own thread.

User code never runs on the loop that answers the broker's heartbeats.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import threading
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from limetask.codec import encode_result
from limetask.errors import ResultError, TaskFailure, UnknownApplicationError
from limetask.status import ErrorInfo, Status
from limetask_worker.applications import ApplicationFactory
from limetask_worker.work import Outcome, Work

_MAX_MESSAGE_CHARACTERS = 10_000
_MAX_TRACEBACK_CHARACTERS = 50_000

current_work: contextvars.ContextVar[Work | None] = contextvars.ContextVar("current_work", default=None)
"""The task whose body is running in this thread or coroutine."""


class Executor:
    """Runs up to `slots` plain functions at a time, and coroutines as they come.

    `run` belongs to one loop; the bodies run elsewhere.
    """

    def __init__(self, slots: int, make_application: ApplicationFactory, max_result_bytes: int) -> None:
        self._threads = concurrent.futures.ThreadPoolExecutor(slots, thread_name_prefix="task")
        self._make_application = make_application
        self._max_result_bytes = max_result_bytes
        self._coroutines: _LoopThread | None = None

    def run(self, work: Work) -> asyncio.Future[Outcome]:
        """Begin the body now; the future's outcome never is an exception of the body, and it is never cancelled."""
        if work.declaration.is_async:
            if self._coroutines is None:
                self._coroutines = _LoopThread()
            return asyncio.wrap_future(self._coroutines.submit(self._run_coroutine(work)))
        return asyncio.get_running_loop().run_in_executor(self._threads, self._run_function, work)

    def close(self) -> None:
        """Let the threads go, without waiting for bodies that still run."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._coroutines is not None:
            self._coroutines.stop()

    def _run_function(self, work: Work) -> Outcome:
        token = current_work.set(work)
        try:
            return self._success(self._call_function(work))
        except BaseException as exc:  # noqa: BLE001 - the border to user code: even sys.exit() only ends its task
            return _outcome_of(exc)
        finally:
            current_work.reset(token)

    def _call_function(self, work: Work) -> Any:
        identity = work.message.identity
        with contextlib.ExitStack() as stack:
            application = self._make_application(identity.app)
            if hasattr(application, "__enter__"):
                application = stack.enter_context(application)
            result = work.declaration.function(application, *work.message.args, **work.message.kwargs)
            return encode_result(result, self._max_result_bytes)

    async def _run_coroutine(self, work: Work) -> Outcome:
        current_work.set(work)
        try:
            return self._success(await self._call_coroutine(work))
        except BaseException as exc:  # noqa: BLE001 - the border to user code: even sys.exit() only ends its task
            return _outcome_of(exc)

    async def _call_coroutine(self, work: Work) -> Any:
        identity = work.message.identity
        async with contextlib.AsyncExitStack() as stack:
            application = await asyncio.to_thread(self._make_application, identity.app)
            if hasattr(application, "__aenter__"):
                application = await stack.enter_async_context(application)
            elif hasattr(application, "__enter__"):
                application = stack.enter_context(application)
            result = await work.declaration.function(application, *work.message.args, **work.message.kwargs)
            return encode_result(result, self._max_result_bytes)

    def _success(self, result: Any) -> Outcome:
        return Outcome(Status.SUCCESS, result, None, datetime.now(UTC))


class _LoopThread:
    """A thread with an asyncio loop for the bodies that are coroutines."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._run, name="coroutine-tasks", daemon=True).start()

    def submit(self, coroutine: Any) -> concurrent.futures.Future[Outcome]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()


def _outcome_of(exc: BaseException) -> Outcome:
    now = datetime.now(UTC)
    match exc:
        case TaskFailure():
            message = _message_of(exc)
            return Outcome(Status.FAILURE, message, ErrorInfo("TaskFailure", message), now)
        case UnknownApplicationError():
            reason = f"unknown application: {_message_of(exc)}"
            return Outcome(Status.FAILURE, None, ErrorInfo("UnknownApplicationError", reason), now, refusal=reason)
        case ResultError():
            return Outcome(Status.FAILURE, None, ErrorInfo("ResultError", _message_of(exc)), now)
    return Outcome(Status.FAILURE, None, ErrorInfo(_type_of(exc), _message_of(exc), _traceback_of(exc)), now)


def _type_of(exc: BaseException) -> str:
    kind = type(exc)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _message_of(exc: BaseException) -> str:
    try:
        message = str(exc)
    except Exception as broken:  # noqa: BLE001 - user code again: an exception's own __str__
        message = f"(its message cannot be shown: {type(broken).__name__})"
    return _shortened(message, _MAX_MESSAGE_CHARACTERS)


def _traceback_of(exc: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(type(exc), exc, _users_frames(exc.__traceback__)))
    except Exception as broken:  # noqa: BLE001 - user code again: __str__ and __repr__ in a chain of causes
        text = f"(the traceback cannot be shown: {type(broken).__name__})"
    return _shortened(text, _MAX_TRACEBACK_CHARACTERS)


def _users_frames(trace: TracebackType | None) -> TracebackType | None:
    """Leave out this module's own frames, which stand above the user's."""
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace


def _shortened(text: str, limit: int) -> str:
    """Keep the end as well as the beginning: a traceback's last lines tell the most."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half:,} characters left out ...]\n{text[-half:]}"
