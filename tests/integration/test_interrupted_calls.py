"""Calls by those who interrupt a call: signal handlers, and logging handlers in limetask's own thread."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from limetask import Settings
from limetask.topology import Names
from tests.broker import queue_length
from tests.programs import Program, output_of
from tests.proxy import proxy_to

# A signal that comes in the middle of a function: the first call of it is interrupted.
INTERRUPTED = """
    import asyncio, limetask, os, secrets, signal, sys, threading
    from limetask import aio
    import limetask.store

    def interrupt_first_call(owner, name):
        function = getattr(owner, name)
        def interrupted(*args, **kwargs):
            setattr(owner, name, function)
            os.kill(os.getpid(), signal.SIGUSR1)
            return function(*args, **kwargs)
        setattr(owner, name, interrupted)

    def on_signal(number, frame):
        try:
            {handler}
        except limetask.LimetaskError as exc:
            print("handler:", type(exc).__name__, exc, flush=True)
        else:
            print("handler: done", flush=True)

    signal.signal(signal.SIGUSR1, on_signal)
"""
SEND = 'limetask.send_task("a.task", "acme")'
SEND_MANY = 'limetask.send_tasks([limetask.TaskCall("a.task", "acme")])'


@pytest.mark.parametrize(
    "place", ['secrets, "token_hex"', 'threading.Thread, "start"', 'limetask.client.Ends, "__init__"']
)
@pytest.mark.parametrize("first", [SEND, SEND_MANY])
def test_a_signal_handler_sends_during_the_first_send(
    settings: Settings, tmp_path: Path, place: str, first: str
) -> None:
    """Wherever the signal comes, both tasks are sent."""
    program = f"""
    interrupt_first_call({place})
    {first}
    print("main: done", flush=True)
    """
    assert output_of(settings, INTERRUPTED.format(handler=SEND) + program, tmp_path) == "handler: done\nmain: done\n"
    assert queue_length(settings.broker_url, Names(settings.namespace).task_queue("default")) == 2


def test_a_signal_handler_waits_while_another_wait_begins(settings: Settings, tmp_path: Path) -> None:
    """A wait that is interrupted where it notes what it waits for goes on afterwards, and so does its own thread."""
    program = f"""
    status = {SEND}
    interrupt_first_call(limetask.client.Ends, "expecting")
    try:
        status.wait(0.1)
    except TimeoutError:
        print("main:", {SEND}.status, flush=True)
    """
    handler = "status.wait(0.1)"
    output = output_of(settings, INTERRUPTED.format(handler=handler) + program, tmp_path)
    assert output.splitlines()[0].startswith("handler: WaitTimeoutError")
    assert output.splitlines()[1] == "main: PENDING"


@pytest.mark.parametrize("call", ['limetask.get_status(status.id, "acme")', "status.wait(0.1)"])
def test_a_signal_handler_that_reads_a_status_during_a_read_gets_an_error(
    settings: Settings, tmp_path: Path, call: str
) -> None:
    """The database may be locked by what it has interrupted: it is told at once, and the read goes on."""
    program = f"""
    status = {SEND}
    interrupt_first_call(limetask.store.Store, "read")
    print("main:", limetask.get_status(status.id, "acme").status, flush=True)
    """
    lines = output_of(settings, INTERRUPTED.format(handler=call) + program, tmp_path).splitlines()
    assert lines[0].startswith("handler: UnusableHereError a signal handler or a `__del__` asks for a task's status")
    assert lines[1] == "main: PENDING"


LOGGING = """
    import asyncio, limetask, logging, sys
    from limetask import aio

    class Sends(logging.Handler):
        def emit(self, record):
            {handler}

    def say(status):
        # Whole: what two threads print in several parts comes mixed.
        sys.stdout.write(f"handler {{status}}\\n")
        sys.stdout.flush()

    logging.getLogger("limetask").addHandler(Sends())
    logging.lastResort = None

    def send():
        limetask.send_task("a.task", "acme")

    async def send_by_aio():
        await aio.send_task("a.task", "acme")

    with asyncio.Runner() as runner:
        {send}
        print("sent", flush=True)
        for _ in sys.stdin:
            {send}
            print("sent", flush=True)
"""


@pytest.mark.parametrize(
    ("handler", "send", "told"),
    [
        (f"say({SEND}.status)", "send()", "handler PENDING"),
        (f'say(limetask.get_status({SEND}.id, "acme").status)', "send()", "handler PENDING"),
        ("1 / 0", "send()", "ZeroDivisionError"),
        ("1 / 0", "runner.run(send_by_aio())", "ZeroDivisionError"),
    ],
)
def test_a_logging_handler_that_sends_or_raises_stops_nothing(
    settings: Settings, tmp_path: Path, handler: str, send: str, told: str
) -> None:
    """The thread that writes the lines may send; what it does wrong is printed. The connection is opened again."""
    with proxy_to(settings.broker_url) as (proxy, url):
        through_proxy = replace(settings, broker_url=url, send_timeout=5.0)
        running = Program(through_proxy, LOGGING.format(handler=handler, send=send), tmp_path)
        running.read_until("sent")
        for _ in range(2):
            proxy.cut()
            running.write("again")
            if told not in running.read_until("sent"):
                running.read_until(told)
        running.output()
