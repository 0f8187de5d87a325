"""The frame of every child process: options in, logs set up, stop on request, one exit code out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from limetask.errors import BrokerRefusedError, ConfigurationError
from limetask.forks import keep_from_forks
from limetask_worker import signals
from limetask_worker.control import ChildOptions, Control
from limetask_worker.loading import LoadingError
from limetask_worker.log_thread import log_thread
from limetask_worker.logs import configure_logging
from limetask_worker.marks import Marks
from limetask_worker.outbox import Outbox
from limetask_worker.streams import flush_streams, lend_streams

logger = logging.getLogger(__name__)

Role = Callable[[ChildOptions, Control, asyncio.Event], Awaitable[bool]]
"""A child's work: returns when the event is set and all is settled; False if something was cut off."""

CUT_OFF = 3
"""Exit code of a child that left something running behind."""

_FLUSH_SECONDS = 5.0


def run_child(role: Role) -> None:
    """Run a role in this process, whose control socket is the descriptor named in the first argument.

    Ends the process without waiting for threads: a body that outlives the grace time must not keep it.
    """
    exit_code = run_loop(_run(role, control_socket_of_this_process()))
    log_thread.flush(_FLUSH_SECONDS)
    with contextlib.suppress(Exception):  # a handler of the user's may do anything
        logging.shutdown()
    flush_streams()
    os._exit(exit_code)


def control_socket_of_this_process() -> socket.socket:
    """Return our end of the control line, which no process that is started or forked from here shall have."""
    control_socket = socket.socket(fileno=int(sys.argv[1]))
    control_socket.set_inheritable(False)
    keep_from_forks(control_socket)
    return control_socket


def marks_of_this_process() -> Marks:
    """Return the marks that we share with the supervisor, who named their memory in the second argument."""
    descriptor = int(sys.argv[2])
    try:
        return Marks(descriptor)
    finally:
        os.close(descriptor)


def outbox_of_this_process() -> Outbox:
    """Return the outbox that we share with the supervisor, who named its memory in the third argument."""
    descriptor = int(sys.argv[3])
    try:
        return Outbox(descriptor)
    finally:
        os.close(descriptor)


def run_loop(main: Coroutine[Any, Any, int]) -> int:
    """Run a coroutine on uvloop where there is one, on asyncio's own loop otherwise."""
    with contextlib.suppress(ImportError):
        import uvloop

        return uvloop.run(main)
    return asyncio.run(main)


async def _run(role: Role, control_socket: socket.socket) -> int:
    control = await Control.open(control_socket)
    options = await control.receive_options()
    configure_logging(options.log_format, options.log_level, options.worker)
    lend_streams()
    leave_signals_to_parent(control.send_asked)
    log_thread.start()
    stop = asyncio.Event()
    waiting = asyncio.get_running_loop().create_task(_stop_when_asked(control, stop))
    try:
        if not await role(options, control, stop):
            return CUT_OFF
        control.send_done()
        await control.flush()
        return 0
    except (LoadingError, ConfigurationError, BrokerRefusedError) as exc:
        control.send_failed(str(exc))
        await control.flush()
        return 1
    finally:
        waiting.cancel()
        signals.hold_back()  # when the loop is closed they would end this process, with another exit code


def leave_signals_to_parent(ask: Callable[[], None]) -> None:
    """Have this process go on whatever signal stops the worker; its parent decides, and is told of SIGTERM by `ask`."""
    signals.catch({signal.SIGTERM: ask, signal.SIGINT: _go_on, signal.SIGHUP: _go_on})
    signals.restore_in_forks()
    signals.let_through()


def _go_on() -> None:
    """It has reached the supervisor as well."""


async def _stop_when_asked(control: Control, stop: asyncio.Event) -> None:
    await control.stop_requested()
    stop.set()


def needless(options: ChildOptions, control: Control, kind: str, decorator: str) -> bool:
    """Say that there is nothing to do here; raises LoadingError if there had to be."""
    if options.must_be_needed:
        raise LoadingError(f"no {kind} is declared in {', '.join(options.packages)}: declare one with {decorator}")
    control.send_needless()
    return True


async def unless_stopped(work: Coroutine[Any, Any, None], stop: asyncio.Event) -> bool:
    """Await `work` and return True; return False, with `work` cancelled, if `stop` is set before."""
    working = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        working.result()
        return True
    working.cancel()
    return False
