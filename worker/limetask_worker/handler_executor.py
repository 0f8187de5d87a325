"""Calls the function of an event handler: plain ones in threads, `async def` on a loop of their own thread."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from dataclasses import dataclass, field

from limetask.events import Event
from limetask.handlers import HandlerDeclaration
from limetask_worker.applications import ApplicationFactory, Opened, opened_async
from limetask_worker.deadlines import deadlines
from limetask_worker.executor import message_of_error, type_of_error
from limetask_worker.forked import end_if_forked
from limetask_worker.fresh_contexts import FreshContextThreads
from limetask_worker.loop_thread import LoopThread
from limetask_worker.soft_limit import soft_limit_in_thread, with_soft_limit
from limetask_worker.unrun import check_has_run


@dataclass(frozen=True, slots=True)
class HandlerFailure:
    """Why a handler failed, as text, and if it raised something, that, and its context variables for error reports."""

    text: str
    error: BaseException | None = None
    context: contextvars.Context = field(default_factory=contextvars.Context)


class HandlerExecutor:
    """Runs one handler, apart from all others: however long it takes, nobody waits for it but its own events.

    Each call, with its application, has a fresh context.
    """

    def __init__(self, handler: HandlerDeclaration, make_application: ApplicationFactory) -> None:
        """Raises RuntimeError if its threads cannot be started now."""
        self._handler = handler
        self._make_application = make_application
        self._threads = FreshContextThreads(handler.concurrency, thread_name_prefix=f"handler {handler.name}")
        self._coroutines = LoopThread(f"handler {handler.name}") if handler.is_async else None
        if self._coroutines is None:
            deadlines.start()
            self._start_threads()

    def _start_threads(self) -> None:
        """Start them all now. An event that finds no thread later would be stuck, and all that come after it."""
        all_started = threading.Barrier(self._handler.concurrency)
        for _ in range(self._handler.concurrency):
            self._threads.submit(all_started.wait)

    def run(self, event: Event) -> asyncio.Future[HandlerFailure | None]:
        """Begin to handle an event; the future's outcome is how the handler failed, None if it returned."""
        if self._coroutines is not None:
            return asyncio.wrap_future(self._coroutines.submit(self._handle_async(event)))
        return asyncio.get_running_loop().run_in_executor(self._threads, self._handle, event)

    def close(self) -> None:
        """Let the threads go, without waiting for what still runs."""
        self._threads.shutdown(wait=False)
        if self._coroutines is not None:
            self._coroutines.stop()

    def _handle(self, event: Event) -> HandlerFailure | None:
        try:
            with contextlib.ExitStack() as stack:
                try:
                    application = stack.enter_context(Opened(self._make_application, event.app))
                    with soft_limit_in_thread(self._handler.soft_time_limit):
                        returned = self._handler.function(application, event)
                    self._check_has_run(returned)
                finally:
                    end_if_forked()  # before the application is closed, which is the parent's
        except BaseException as exc:  # noqa: BLE001 - the border to user code: even sys.exit() only fails its event
            return _failure_of(exc)
        return None

    async def _handle_async(self, event: Event) -> HandlerFailure | None:
        try:
            async with contextlib.AsyncExitStack() as stack:
                try:
                    application = await stack.enter_async_context(opened_async(self._make_application, event.app))
                    body = self._handler.function(application, event)
                    self._check_has_run(await with_soft_limit(self._handler.soft_time_limit, body))
                finally:
                    end_if_forked()
        except BaseException as exc:  # noqa: BLE001 - the border to user code: even sys.exit() only fails its event
            return _failure_of(exc)
        return None

    def _check_has_run(self, returned: object) -> None:
        check_has_run(returned, f"event handler {self._handler.name!r}")


def _failure_of(error: BaseException) -> HandlerFailure:
    # The text is made where the handler runs: an exception's __str__ is user code.
    return HandlerFailure(f"{type_of_error(error)}: {message_of_error(error)}", error, contextvars.copy_context())
