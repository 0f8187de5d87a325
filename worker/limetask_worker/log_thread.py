"""limetask's own log lines, written by a thread of their own.

Users' logging handlers, filters and record factories may take as long as they like. A loop must not wait for them,
neither that of the worker's connections, nor that of a client that a body uses, nor that of users' coroutines. So what
limetask logs where a loop runs is only handed over there.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from queue import SimpleQueue
from typing import Any, cast

from limetask_worker.work import Work

# Fields of a log record that no user's `extra` will have by chance.
WORK_FIELD = "limetask_work"
IDENTITY_FIELD = "limetask_identity"

# Lines that wait to be written. One with an exception holds all that its frames hold, so fewer of those may wait.
_MAX_LINES = 10_000
_MAX_EXCEPTIONS = 1_000
_FLUSH_SECONDS = 5.0
# Whose lines are handed over: what logs on a loop of limetask's. Only limetask's own cannot be disabled.
_OWN = ("limetask", "limetask_worker")
_OTHERS = ("pika", "asyncio")

_Write = Callable[[], None]


class LogThread:
    """Writes what is logged in threads in which an asyncio loop runs; other threads write their own lines.

    More lines than can wait are dropped, and counted.
    """

    def __init__(self) -> None:
        self._is_at_work = False
        self._lock = threading.Lock()
        self._lines: SimpleQueue[tuple[contextvars.Context, _Write, bool]] = SimpleQueue()
        self._waiting = 0
        self._exceptions = 0
        self._dropped = 0

    def start(self) -> None:
        """Write what loops log from now on, until the process ends."""
        threading.Thread(target=self._run, name="log", daemon=True).start()
        self._is_at_work = True
        os.register_at_fork(after_in_child=self.stop)
        atexit.register(self.flush, _FLUSH_SECONDS)

    def stop(self) -> None:
        """Have each thread write its own lines again. What waits is still written."""
        self._is_at_work = False

    def serves_this_thread(self) -> bool:
        return self._is_at_work and asyncio._get_running_loop() is not None

    def put(self, write: _Write, *, has_exception: bool) -> None:
        """Have `write` called in the context that is current here; dropped if too many lines wait."""
        with self._lock:
            if self._waiting >= _MAX_LINES or (has_exception and self._exceptions >= _MAX_EXCEPTIONS):
                self._dropped += 1
                return
            self._waiting += 1
            self._exceptions += has_exception
        self._lines.put((contextvars.copy_context(), write, has_exception))

    def flush(self, seconds: float) -> None:
        """Return when all that waits now is written, or `seconds` are over."""
        written = threading.Event()
        if self._is_at_work:
            self._lines.put((contextvars.Context(), written.set, False))
            written.wait(seconds)

    def _run(self) -> None:
        while True:
            context, write, has_exception = self._lines.get()
            try:
                context.run(write)
            except BaseException:  # noqa: BLE001 - the border to user code: a filter, a handler or a record factory
                with contextlib.suppress(Exception):  # a closed standard error
                    traceback.print_exc()
            del context, write
            self._note_written(has_exception)

    def _note_written(self, has_exception: bool) -> None:
        with self._lock:
            self._waiting -= 1
            self._exceptions -= has_exception
            dropped, self._dropped = self._dropped, 0
        if dropped:
            logger.warning("%d log lines were dropped: logging handlers, or standard error, are too slow", dropped)


log_thread = LogThread()
logger = logging.getLogger(__name__)


class _HandedOver(logging.Logger):
    """A logger whose lines `log_thread` writes if they are of a thread that it serves."""

    def _log(
        self,
        level: int,
        msg: object,
        args: Any,
        exc_info: Any = None,
        extra: Mapping[str, object] | None = None,
        stack_info: bool = False,
        stacklevel: int = 1,
    ) -> None:
        if not log_thread.serves_this_thread():
            super()._log(level, msg, args, exc_info, extra, stack_info, stacklevel + 1)
            return
        file, line, function, stack = self.findCaller(stack_info, stacklevel + 1)
        caught = _caught(exc_info)
        record = logging.LogRecord(self.name, level, file, line, msg, args, caught, function, stack)
        record.__dict__.update(_light(extra))
        log_thread.put(partial(self._write, record), has_exception=caught is not None)

    def _write(self, record: logging.LogRecord) -> None:
        factory = logging.getLogRecordFactory()
        if factory is not logging.LogRecord:  # a user's: it adds fields, and may take its time
            known = record
            record = factory(
                *(known.name, known.levelno, known.pathname, known.lineno, known.msg, known.args, known.exc_info),
                *(known.funcName, known.stack_info),
            )
            record.__dict__.update(known.__dict__)  # the time and the thread of the line
        self.handle(record)


class _NeverDisabled(_HandedOver):
    """One of limetask's: `dictConfig` disables, unless told otherwise, every logger that it finds."""

    @property
    def disabled(self) -> bool:
        return False

    @disabled.setter
    def disabled(self, value: bool) -> None:
        pass


def hand_over_lines() -> None:
    """Have the lines of all loggers that limetask and its libraries have made so far handed to `log_thread`."""
    for name, made in list(logging.Logger.manager.loggerDict.items()):
        family = name.partition(".")[0]
        if isinstance(made, logging.Logger) and not isinstance(made, _HandedOver) and family in _OWN + _OTHERS:
            made.__class__ = _kind(_NeverDisabled if family in _OWN else _HandedOver, type(made))


def _kind(kind: type[logging.Logger], made: type[logging.Logger]) -> type[logging.Logger]:
    """Return `kind` as a subclass of what a logger is: somebody may have set another class of loggers."""
    return kind if made is logging.Logger else cast(type[logging.Logger], type(made.__name__, (kind, made), {}))


def _caught(exc_info: Any) -> Any:
    """Return what a record holds for what a logger was given as `exc_info`."""
    if isinstance(exc_info, BaseException):
        return type(exc_info), exc_info, exc_info.__traceback__
    return sys.exc_info() if exc_info and not isinstance(exc_info, tuple) else exc_info or None


def _light(extra: Mapping[str, object] | None) -> dict[str, object]:
    """Return a line's fields without the task's message, which would be kept as long as the line waits."""
    fields = dict(extra or {})
    work = fields.pop(WORK_FIELD, None)
    if isinstance(work, Work):
        fields[IDENTITY_FIELD] = work.message.identity
    return fields
