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
from limetask_worker.control import ChildOptions, Control
from limetask_worker.loading import LoadingError
from limetask_worker.logs import configure_logging

logger = logging.getLogger(__name__)

Role = Callable[[ChildOptions, Control, asyncio.Event], Awaitable[bool]]
"""A child's work: returns when the event is set and all is settled; False if something was cut off."""

CUT_OFF = 3
"""Exit code of a child that left something running behind."""


def run_child(role: Role) -> None:
    """Run a role in this process, whose control socket is the descriptor named in the first argument.

    Ends the process without waiting for threads: a body that outlives the grace time must not keep it.
    """
    exit_code = run_loop(_run(role, socket.socket(fileno=int(sys.argv[1]))))
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


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
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    # Ctrl-C reaches every process of a terminal; the supervisor decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    waiting = loop.create_task(_stop_when_asked(control, stop))
    try:
        return 0 if await role(options, control, stop) else CUT_OFF
    except (LoadingError, ConfigurationError, BrokerRefusedError) as exc:
        control.send_failed(str(exc))
        await control.flush()
        return 1
    finally:
        waiting.cancel()


async def _stop_when_asked(control: Control, stop: asyncio.Event) -> None:
    await control.stop_requested()
    stop.set()


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
