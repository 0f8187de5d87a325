"""Calls what users declare for the begin and the end of a process: their hooks, and handlers of atexit."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from limetask.hooks import started_hooks, stopping_hooks
from limetask_worker.forked import end_if_forked
from limetask_worker.loading import LoadingError
from limetask_worker.streams import flush_streams
from limetask_worker.unrun import check_has_run

logger = logging.getLogger(__name__)

STOPPING_SECONDS = 10.0
"""How long hooks and `atexit` handlers have, all together, before their process ends without them."""

_LAST_LINE_SECONDS = 2.0


class ProcessHooks:
    """The hooks of this process. Those for its end are called only if all for its start have returned."""

    def __init__(self) -> None:
        self._have_started = False
        self._running = ""

    def start(self) -> None:
        """Call the hooks for a process's start; raises LoadingError, with the traceback, for one that fails."""
        for hook in started_hooks():
            try:
                _call(hook)
            except BaseException as exc:  # the border to user code: asyncio.CancelledError is no Exception
                text = traceback.format_exc().rstrip()
                raise LoadingError(
                    f"@worker_process_started: {_name_of(hook)} failed, so no task was taken:\n\n{text}"
                ) from exc
        self._have_started = True

    def end_process(self, exit_code: int) -> NoReturn:
        """Call the hooks for a process's end and the handlers of atexit, flush logs and streams, and end it.

        It does not wait for threads: a body that outlives the grace time must not keep the process, and neither must
        what is called here.
        """
        self._end_at_last(exit_code)
        if self._have_started:
            for hook in stopping_hooks():
                self._call_at_the_end(hook)
        self._running = "an atexit handler"
        with contextlib.suppress(BaseException):
            # What Python does at its own end, without joining threads before. It is the only way to have it done.
            atexit._run_exitfuncs()
            end_if_forked()
        flush_streams()
        os._exit(exit_code)

    def _end_at_last(self, exit_code: int) -> None:
        giving_up = threading.Timer(STOPPING_SECONDS, self._give_up, [exit_code])
        giving_up.daemon = True
        with contextlib.suppress(RuntimeError):  # no threads left: then it is for the supervisor to lose patience
            giving_up.start()

    def _call_at_the_end(self, hook: Callable[[], Any]) -> None:
        self._running = f"@worker_process_stopping: {_name_of(hook)}"
        try:
            _call(hook)
        except BaseException:  # the border to user code: sys.exit() must not keep the others from it
            logger.exception("@worker_process_stopping: %s failed", _name_of(hook))

    def _give_up(self, exit_code: int) -> None:
        text = "the process ends without waiting any longer: after %g s this had not ended: %s"
        # A logging handler may be what has not ended.
        telling = threading.Thread(target=logger.error, args=(text, STOPPING_SECONDS, self._running), daemon=True)
        with contextlib.suppress(RuntimeError):  # no threads left
            telling.start()
            telling.join(_LAST_LINE_SECONDS)
        os._exit(exit_code)


def _call(hook: Callable[[], Any]) -> None:
    try:
        returned = hook()
    finally:
        end_if_forked()
    check_has_run(returned, "it")


def _name_of(hook: Callable[[], Any]) -> str:
    return f"{getattr(hook, '__module__', '')}.{getattr(hook, '__qualname__', repr(hook))}".lstrip(".")


process_hooks = ProcessHooks()
