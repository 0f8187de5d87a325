"""The end of processes that bodies fork.

A forked process goes on where the body is. If it leaves the body, it comes to code that settles a task in the name of
its parent, and that runs other tasks. None of this is its business, so it ends there.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading

from limetask.log_thread import log_thread

_is_forked = False


def _note_fork() -> None:
    global _is_forked
    _is_forked = True


os.register_at_fork(after_in_child=_note_fork)


def end_if_forked(error: BaseException | None = None) -> None:
    """End this process if a body has forked it, as Python ends a program: by `error`, or the exception being handled.

    Call it where a body returns or raises, before anything is closed that is the parent's.
    """
    if _is_forked:  # to ask for the process id takes five times as long, for each task
        _end(error or sys.exception())


def _end(error: BaseException | None) -> None:
    exit_code = 1
    with contextlib.suppress(BaseException):  # whatever happens here, it must not come back to the parent's code
        exit_code = _told(error)
        _join_threads()
        log_thread.finish()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(exit_code)


def _told(error: BaseException | None) -> int:
    """Say what Python says at a program's end, and return its exit code."""
    match error:
        case None | SystemExit(code=None):
            return 0
        case SystemExit(code=int(code)):
            return code & 0xFF
        case SystemExit(code=code):
            sys.stderr.write(f"{code}\n")
        case _:
            sys.excepthook(type(error), error, error.__traceback__)
    return 1


def _join_threads() -> None:
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
