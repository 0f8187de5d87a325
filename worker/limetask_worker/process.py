"""The frame of every child process: options in, logs set up, stop on request, one exit code out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from limetask.errors import BrokerRefusedError, ConfigurationError
from limetask_worker.control import ChildOptions, Control
from limetask_worker.loading import LoadingError
from limetask_worker.logs import configure_logging
from limetask_worker.marks import Marks
from limetask_worker.outbox import Outbox

logger = logging.getLogger(__name__)

Role = Callable[[ChildOptions, Control, asyncio.Event], Awaitable[bool]]
"""A child's work: returns when the event is set and all is settled; False if something was cut off."""

CUT_OFF = 3
"""Exit code of a child that left something running behind."""

STOPPED_TOO_SOON = "the worker stopped before the task had ended"


def run_child(role: Role) -> None:
    """Run a role in this process, whose control socket is the descriptor named in the first argument.

    Ends the process without waiting for threads: a body that outlives the grace time must not keep it.
    """
    exit_code = run_loop(_run(role, control_socket_of_this_process()))
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


def control_socket_of_this_process() -> socket.socket:
    """Return our end of the control line, which no process that is started from here shall have."""
    control_socket = socket.socket(fileno=int(sys.argv[1]))
    control_socket.set_inheritable(False)
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


async def start_process(module: str, shared: Sequence[int] = ()) -> tuple[asyncio.subprocess.Process, Control]:
    """Start a Python process that runs `module`, and return it with our end of the control line to it.

    It gets the file descriptors `shared` too, and finds their numbers in its arguments.
    """
    ours, theirs = socket.socketpair()
    descriptors = [theirs.fileno(), *shared]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *map(str, descriptors), pass_fds=descriptors, env=_child_environment()
    )
    theirs.close()
    return process, await Control.open(ours)


def _child_environment() -> dict[str, str]:
    # As `python -m` would: users' packages are found in the folder where the worker is started.
    paths = [str(path) for path in (os.getcwd(), os.environ.get("PYTHONPATH")) if path]  # noqa: PTH109
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return "a signal without a name"


def reason_of_death(exit_code: int) -> str:
    """Return what an exit code, negative for a signal, says of a worker process, for whoever reads a task's error."""
    if exit_code < 0:
        probably = ", probably out of memory" if exit_code == -signal.SIGKILL else ""
        return f"the worker process was killed by {_signal_name(-exit_code)} (signal {-exit_code}){probably}"
    if exit_code == CUT_OFF:
        return STOPPED_TOO_SOON
    return f"the worker process ended with exit code {exit_code}"
