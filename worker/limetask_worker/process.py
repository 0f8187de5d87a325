"""The frame of every child process: options in, logs set up, stop on request, one exit code out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, NoReturn

from limetask.errors import BrokerRefusedError, ConfigurationError
from limetask.forks import keep_from_forks
from limetask.settings import Settings, configure
from limetask_worker import signals
from limetask_worker.control import ChildOptions, Control
from limetask_worker.loading import LoadingError
from limetask_worker.log_thread import log_thread
from limetask_worker.logs import configure_logging
from limetask_worker.marks import Marks
from limetask_worker.outbox import Outbox
from limetask_worker.process_hooks import process_hooks
from limetask_worker.streams import lend_streams

logger = logging.getLogger(__name__)

Role = Callable[[ChildOptions, Control, asyncio.Event], Awaitable[bool]]
"""A child's work: returns when the event is set and all is settled; False if something was cut off."""

Prepare = Callable[[ChildOptions], None]
"""What a child does before its loop runs: imports users' code and calls its hooks."""

CUT_OFF = 3
"""Exit code of a child that left something running behind."""


def run_child(role: Role, prepare: Prepare | None = None) -> NoReturn:
    """Run a role in this process, whose control socket is the descriptor named in the first argument.

    `prepare` is called before, in the main thread while no loop runs. The process ends without waiting for threads.
    """
    with new_runner() as runner:
        child = runner.run(_Child.open(control_socket_of_this_process()))
        failure = child.prepared(prepare)
        exit_code = runner.run(child.run(role, failure))
    signals.go_on()
    process_hooks.end_process(exit_code)


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


def new_runner() -> asyncio.Runner:
    """Return what runs coroutines on uvloop where there is one, on asyncio's own loop otherwise.

    The loop is nobody's current one while it does not run: what a module schedules at its import must not come to it.
    """
    with contextlib.suppress(ImportError):
        import uvloop

        return asyncio.Runner(loop_factory=uvloop.new_event_loop)
    return asyncio.Runner(loop_factory=asyncio.new_event_loop)


def leave_signals_to_parent(ask: Callable[[], None]) -> None:
    """Have this process go on whatever signal stops the worker; its parent decides, and is told of SIGTERM by `ask`.

    To be called again when users' code has been imported: it may have set handlers of its own.
    """
    reached_the_parent_too = signals.do_nothing
    signals.catch({signal.SIGTERM: ask, signal.SIGINT: reached_the_parent_too, signal.SIGHUP: reached_the_parent_too})
    signals.let_through()


def spare_other_signals() -> None:
    """Have no other signal end this process. Users' code may handle it: call this once, before that is imported."""
    signals.catch(dict.fromkeys((signal.SIGQUIT, *signals.HARMLESS), signals.do_nothing))


class _Child:
    """This process, and the line to its supervisor."""

    def __init__(self, control: Control, options: ChildOptions) -> None:
        self._control = control
        self._options = options
        self._stop = asyncio.Event()
        self._waiting = asyncio.get_running_loop().create_task(self._stop_when_asked())

    @classmethod
    async def open(cls, control_socket: socket.socket) -> _Child:
        control = await Control.open(control_socket)
        child = cls(control, await control.receive_options())
        options = child._options
        configure_logging(options.log_format, options.log_level, options.worker)
        lend_streams()
        signals.restore_in_forks()
        spare_other_signals()
        leave_signals_to_parent(control.send_asked)
        # Now that no signal is held back: a program that a logging handler starts has the mask of this thread.
        log_thread.start()
        return child

    def prepared(self, prepare: Prepare | None) -> Exception | None:
        """Prepare this process; return what another start would not mend."""
        try:
            # As `current_settings` would, but for its warnings of unknown variables: the supervisor gives those.
            configure(Settings.from_environment())
            if prepare is not None:
                prepare(self._options)
        except (LoadingError, ConfigurationError) as exc:
            return exc
        return None

    async def run(self, role: Role, failure: Exception | None) -> int:
        """Run a role, or tell of the failure of its preparation; return the exit code."""
        leave_signals_to_parent(self._control.send_asked)
        try:
            if failure is not None:
                raise failure
            if not await role(self._options, self._control, self._stop):
                return CUT_OFF
            self._control.send_done()
            await self._control.flush()
            return 0
        except _NotNowError as exc:
            logger.critical("%s", exc)
            return 1
        except (LoadingError, ConfigurationError, BrokerRefusedError) as exc:
            self._control.send_failed(str(exc))
            await self._control.flush()
            return 1
        finally:
            self._waiting.cancel()
            signals.hold_back()  # when the loop is closed they would end this process, with another exit code

    async def _stop_when_asked(self) -> None:
        await self._control.stop_requested()
        self._stop.set()


def needless(options: ChildOptions, control: Control, kind: str, decorator: str) -> bool:
    """Say that there is nothing to do here; raises LoadingError if there had to be."""
    if options.must_be_needed:
        raise LoadingError(f"no {kind} is declared in {', '.join(options.packages)}: declare one with {decorator}")
    control.send_needless()
    return True


@contextlib.contextmanager
def needing_threads(advice: str) -> Iterator[None]:
    """Start threads in this block, before there is work for them: without them this process ends, and is tried again.

    `advice` is what to do beside raising limits.
    """
    try:
        yield
    except RuntimeError as exc:
        raise _NotNowError(
            f"not all threads can be started ({exc}): raise the limits of processes and memory, or {advice}"
        ) from exc


class _NotNowError(Exception):
    """This process cannot do its work, and another start of it may succeed."""


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
