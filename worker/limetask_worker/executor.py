"""Runs the bodies of tasks: plain functions in threads, `async def` on a loop of their own thread.

User code never runs on the loop that answers the broker's heartbeats.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import logging
import time
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import orjson

from limetask.codec import valid_text
from limetask.context import current_task_id
from limetask.errors import ResultError, SoftTimeLimitExceeded, TaskFailure, UnknownApplicationError
from limetask.message import UNKNOWN_APPLICATION
from limetask.results import encode_result
from limetask.status import ErrorInfo, Status
from limetask_worker import applications, body_threads, fresh_contexts, soft_limit
from limetask_worker.applications import ApplicationFactory, Opened, opened_async
from limetask_worker.body_threads import BodyThreads
from limetask_worker.deadlines import deadlines
from limetask_worker.forked import end_if_forked
from limetask_worker.loop_thread import LoopThread
from limetask_worker.soft_limit import soft_limit_in_thread, with_soft_limit
from limetask_worker.work import Outcome, Work

logger = logging.getLogger(__name__)

_MAX_MESSAGE_CHARACTERS = 10_000
_MAX_TRACEBACK_CHARACTERS = 50_000

_FRAMES_ABOVE = (
    __file__,
    applications.__file__,
    body_threads.__file__,
    fresh_contexts.__file__,
    soft_limit.__file__,
    contextlib.__file__,
    *asyncio.__path__,
    *concurrent.futures.__path__,
)

current_work: contextvars.ContextVar[Work | None] = contextvars.ContextVar("current_work", default=None)
"""The task whose body is running in this thread or coroutine."""


class Executor:
    """Runs up to `slots` plain functions at a time, the others wait; and coroutines as they come.

    `run` belongs to one loop; the bodies run elsewhere.
    """

    def __init__(self, slots: int, make_application: ApplicationFactory, max_result_bytes: int) -> None:
        self._threads = BodyThreads(slots, self._run_function)
        self._make_application = make_application
        self._max_result_bytes = max_result_bytes
        self._coroutines: LoopThread | None = None

    def start(self, *, coroutines: bool) -> None:
        """Start the threads, with `coroutines` the one for these too, which is done at the first need otherwise.

        Raises RuntimeError if that cannot be done now, as when the limit of processes is reached.
        """
        deadlines.start()
        self._threads.start()
        if coroutines:
            self._coroutines = LoopThread("coroutine-tasks")

    def run(self, work: Work) -> asyncio.Future[Outcome]:
        """Begin the body now; the future's outcome never is an exception of the body, and it is never cancelled."""
        if work.declaration.is_async:
            if self._coroutines is None:
                self._coroutines = LoopThread("coroutine-tasks")
            return asyncio.wrap_future(self._coroutines.submit(self._run_coroutine(work)))
        return self._threads.run(work)

    @property
    def longest_waiting(self) -> Work | None:
        """The task that has waited for longest for its thread, None if none waits."""
        return self._threads.longest_waiting

    def take_back(self) -> list[Work]:
        """Return the tasks that have not begun, since no thread was free; they will not, and their futures end."""
        return self._threads.take_back()

    def close(self) -> None:
        """Let the threads go, without waiting for bodies that still run."""
        self._threads.close()
        if self._coroutines is not None:
            self._coroutines.stop()

    def _run_function(self, work: Work) -> Outcome:
        current_work.set(work)
        current_task_id.set(work.message.identity.task_id)
        work.mark.begin(work.time_limit)
        begun_at = time.monotonic()
        try:
            return self._success(self._call_function(work))
        except BaseException as exc:  # noqa: BLE001 - the border to user code: even sys.exit() only ends its task
            return _outcome_of(exc)
        finally:
            _note_end(work, begun_at)

    def _call_function(self, work: Work) -> bytes:
        declaration, message = work.declaration, work.message
        with _Application(self._make_application, message.identity.app) as application:
            try:
                if declaration.soft_time_limit is None:  # as nearly always: to enter and leave nothing takes its time
                    result = declaration.function(application, *message.args, **message.kwargs)
                else:
                    with soft_limit_in_thread(declaration.soft_time_limit):
                        result = declaration.function(application, *message.args, **message.kwargs)
            finally:
                end_if_forked()  # before the application is closed, which is the parent's
            return encode_result(result, self._max_result_bytes)

    async def _run_coroutine(self, work: Work) -> Outcome:
        current_work.set(work)
        current_task_id.set(work.message.identity.task_id)
        work.mark.begin(work.time_limit)
        begun_at = time.monotonic()
        try:
            return self._success(await self._call_coroutine(work))
        except BaseException as exc:  # noqa: BLE001 - the border to user code: even sys.exit() only ends its task
            return _outcome_of(exc)
        finally:
            _note_end(work, begun_at)

    async def _call_coroutine(self, work: Work) -> bytes:
        async with contextlib.AsyncExitStack() as stack:
            try:
                opening = opened_async(self._make_application, work.message.identity.app)
                try:
                    application = await stack.enter_async_context(opening)
                except UnknownApplicationError as exc:
                    raise _RefusedError(exc) from exc
                body = work.declaration.function(application, *work.message.args, **work.message.kwargs)
                result = await with_soft_limit(work.declaration.soft_time_limit, body)
            finally:
                end_if_forked()
            return encode_result(result, self._max_result_bytes)

    def _success(self, result: bytes) -> Outcome:
        return Outcome(Status.SUCCESS, result, None, datetime.now(UTC))


def _note_end(work: Work, begun_at: float) -> None:
    work.body_seconds = time.monotonic() - begun_at
    if work.time_limit is not None:
        work.mark.lift_time_limit()


class _Application(Opened):
    """The application of one body. That there is none is a refusal if its factory says so, not later."""

    __slots__ = ()

    def __enter__(self) -> Any:
        try:
            return super().__enter__()
        except UnknownApplicationError as exc:
            raise _RefusedError(exc) from exc
        finally:
            end_if_forked()


class _RefusedError(Exception):
    """There is no such application, so the body is not run."""

    def __init__(self, unknown: UnknownApplicationError) -> None:
        super().__init__(f"unknown application: {message_of_error(unknown)}")


def _outcome_of(exc: BaseException) -> Outcome:
    message = message_of_error(exc)
    context = contextvars.copy_context()
    raised = type(exc), exc, _users_frames(exc.__traceback__)
    now = datetime.now(UTC)
    match exc:
        case TaskFailure() if not _has_background(exc):
            return Outcome(Status.FAILURE, orjson.dumps(message), ErrorInfo("TaskFailure", message), now)
        case TaskFailure():
            error = ErrorInfo("TaskFailure", message, _traceback_of(exc))
            return Outcome(Status.FAILURE, orjson.dumps(message), error, now, exc_info=raised, context=context)
        case _RefusedError():
            return Outcome(Status.FAILURE, None, ErrorInfo(UNKNOWN_APPLICATION, message), now, refusal=message)
        case ResultError():
            error = ErrorInfo("ResultError", message)
            return Outcome(Status.FAILURE, None, error, now, exc_info=raised, context=context)
    error = ErrorInfo(type_of_error(exc), message, _traceback_of(exc))
    return Outcome(Status.FAILURE, None, error, now, exc_info=raised, context=context)


def _has_background(failure: TaskFailure) -> bool:
    """Return True if an exception says more than its message: what it was raised from, or notes."""
    context = None if failure.__suppress_context__ else failure.__context__
    return failure.__cause__ is not None or context is not None or hasattr(failure, "__notes__")


def type_of_error(exc: BaseException) -> str:
    """Return the name of an exception's type, with its module unless everybody knows it."""
    kind = type(exc)
    is_well_known = kind.__module__ in ("builtins", SoftTimeLimitExceeded.__module__)
    return kind.__qualname__ if is_well_known else f"{kind.__module__}.{kind.__qualname__}"


def message_of_error(exc: BaseException) -> str:
    """Return an exception's message, shortened, whatever its `__str__` does."""
    try:
        message = str(exc)
    except BaseException as broken:  # noqa: BLE001 - user code again: an exception's own __str__
        message = f"(its message cannot be shown: {type(broken).__name__})"
    return _shortened(valid_text(message), _MAX_MESSAGE_CHARACTERS)


def _traceback_of(exc: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(type(exc), exc, _users_frames(exc.__traceback__)))
    except BaseException as broken:  # noqa: BLE001 - user code again: __str__ and __repr__ in a chain of causes
        text = f"(the traceback cannot be shown: {type(broken).__name__})"
    return _shortened(valid_text(text), _MAX_TRACEBACK_CHARACTERS)


def _users_frames(trace: TracebackType | None) -> TracebackType | None:
    """Leave out the frames above the user's: this module's, and those through which it calls."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_FRAMES_ABOVE):
        trace = trace.tb_next
    return trace


def _shortened(text: str, limit: int) -> str:
    """Keep the end as well as the beginning: a traceback's last lines tell the most."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half:,} characters left out ...]\n{text[-half:]}"
