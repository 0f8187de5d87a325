"""limetask's own log lines, written by a thread of their own.

Users' logging handlers, filters and record factories may take as long as they like. A loop must not wait for them: not
the one of a producer's connection, and in a worker none at all. So what is logged there is only handed over.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import logging
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

from limetask.answers import Answer
from limetask.threads import is_own_thread, start_thread, unpatched

# Lines that wait to be written. One with an exception holds all that its frames hold, so fewer of those may wait.
_MAX_LINES = 10_000
_MAX_EXCEPTIONS = 1_000
# How long the end of a program waits for them.
_FLUSH_SECONDS = 5.0

_Write = Callable[[], None]
_Extra = Mapping[str, object] | None


class _Lines:
    """The lines that wait in one process, and the thread that writes them, started at the first.

    More lines than can wait are dropped, and counted.
    """

    def __init__(self) -> None:
        # Loops of ours are in real threads also under gevent, whose own locks and queues are between greenlets.
        self._lock = unpatched("_thread", "allocate_lock")()
        self._lines = unpatched("queue", "SimpleQueue")()
        self.are_written = False
        self._waiting = 0
        self._exceptions = 0
        self._dropped = 0

    def start(self) -> bool:
        """Have a thread that writes them; return False if Python starts no threads any more."""
        with self._lock:
            if not self.are_written:
                try:
                    start_thread(self._run, "limetask log")
                except RuntimeError:
                    return False
                self.are_written = True
        return True

    def put(self, write: _Write, *, has_exception: bool) -> None:
        with self._lock:
            if self._waiting >= _MAX_LINES or (has_exception and self._exceptions >= _MAX_EXCEPTIONS):
                self._dropped += 1
                return
            self._waiting += 1
            self._exceptions += has_exception
        self._lines.put((contextvars.copy_context(), write, has_exception))

    def flush(self, seconds: float) -> None:
        written: Answer[None] = Answer()
        if self.are_written:
            with self._lock:
                self._waiting += 1
            self._lines.put((contextvars.Context(), partial(written.give, None), False))
            written.wait(seconds)

    def _run(self) -> None:
        while True:
            context, write, has_exception = self._lines.get()
            try:
                context.run(write)
            except BaseException:  # noqa: BLE001 - the border to user code: a filter, a handler or a record factory
                if logging.raiseExceptions:
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


class LogThread:
    """Writes what is logged in the threads that it serves: those of limetask's own loops, and in a worker all loops'.

    All other threads write their own lines. A forked process has a thread of its own.
    """

    def __init__(self) -> None:
        self._serves_all_loops = False
        self._is_over = False
        # By process: not all that fork run Python's hooks, and a lock that is held at the fork stays so in the child.
        self._of_process: dict[int, _Lines] = {}

    def start(self) -> None:
        """Write what any loop logs from now on, until the process ends: a worker's users run coroutines on others."""
        self._serves_all_loops = self._lines().start()
        os.register_at_fork(after_in_child=self.stop)

    def stop(self) -> None:
        """Serve the threads of limetask's own loops alone. What waits is still written."""
        self._serves_all_loops = False

    def serves_this_thread(self) -> bool:
        if self._serves_all_loops and asyncio._get_running_loop() is not None:
            return True
        if not is_own_thread() or self._is_over:
            return False
        lines = self._lines()
        return lines.are_written or lines.start()

    def put(self, write: _Write, *, has_exception: bool) -> None:
        """Have `write` called in the context that is current here; dropped if too many lines wait."""
        self._lines().put(write, has_exception=has_exception)

    def flush(self, seconds: float) -> None:
        """Return when all that waits now is written, or `seconds` are over."""
        self._lines().flush(seconds)

    def finish(self) -> None:
        """Write what waits, for some seconds at most; from now on each thread writes its own lines."""
        self.flush(_FLUSH_SECONDS)
        self._is_over = True
        self.stop()

    def _lines(self) -> _Lines:
        found = self._of_process.get(os.getpid())
        return found if found is not None else self._of_process.setdefault(os.getpid(), _Lines())


log_thread = LogThread()
atexit.register(lambda: log_thread.finish())  # before the client's, and so called after it

logger = logging.getLogger(__name__)


def _dict_of(extra: _Extra) -> dict[str, object]:
    return dict(extra or {})


class _InWorker:
    """What differs in a worker."""

    is_here = False
    lighten: Callable[[_Extra], dict[str, object]] = staticmethod(_dict_of)


def log_as_worker(lighten: Callable[[_Extra], dict[str, object]]) -> None:
    """Let nobody disable limetask's own loggers; a line that waits keeps what `lighten` returns for its fields."""
    _InWorker.is_here = True
    _InWorker.lighten = staticmethod(lighten)


class HandedOver(logging.Logger):
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
        record.__dict__.update(_InWorker.lighten(extra))
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


class OwnLogger(HandedOver):
    """One of limetask's. `dictConfig` disables, by default, every logger that it finds; in a worker not this one."""

    @property
    def disabled(self) -> bool:
        return not _InWorker.is_here and bool(self.__dict__.get("disabled"))

    @disabled.setter
    def disabled(self, value: bool) -> None:
        self.__dict__["disabled"] = value


def own_logger(name: str) -> logging.Logger:
    """Return limetask's own logger of that name: what it logs on a loop runs no user's code there."""
    made = logging.getLogger(name)
    hand_over(made, OwnLogger)
    return made


def hand_over(made: logging.Logger, kind: type[HandedOver]) -> None:
    """Have the lines of a logger handed to `log_thread`: make it one of this kind."""
    if not isinstance(made, kind):
        made.__class__ = _subclass(kind, type(made))


def _subclass(kind: type[HandedOver], made: type[logging.Logger]) -> type[logging.Logger]:
    """Return `kind` as a subclass of what a logger is: somebody may have set another class of loggers."""
    return kind if made is logging.Logger else cast(type[logging.Logger], type(made.__name__, (kind, made), {}))


def _caught(exc_info: Any) -> Any:
    """Return what a record holds for what a logger was given as `exc_info`."""
    if isinstance(exc_info, BaseException):
        return type(exc_info), exc_info, exc_info.__traceback__
    return sys.exc_info() if exc_info and not isinstance(exc_info, tuple) else exc_info or None
