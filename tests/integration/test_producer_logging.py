"""Logging code of a producer's: limetask's lines come to it, and it holds up no send."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from limetask import Settings
from limetask.topology import Names
from tests.broker import queue_length
from tests.programs import Program, output_of
from tests.proxy import proxy_to
from tests.waiting import eventually

# A word on standard input, then what happened on standard output.
PRODUCER = """
    {before}
    import limetask, logging, os, sys, threading, time
    from pathlib import Path

    def wait():
        while not Path("go-on").exists():
            time.sleep(0.01)
        return True

    class Telling(logging.Handler):
        def createLock(self):
            self.lock = None  # what a line waits for is only what the test has it wait for

        def emit(self, record):
            if record.name.startswith("limetask"):
                Path("has-begun").touch()
                {wait_in_handler}
                os.write(1, f"line: {{record.getMessage()}}\\n".encode())

    logging.getLogger().addHandler(Telling())
    {more}

    def send():
        limetask.send_task("a.task", "acme")
        print("sent", os.getpid(), flush=True)

    send()
    for line in sys.stdin:
        {on_line}
"""


def producer(
    settings: Settings,
    folder: Path,
    *,
    wait_in_handler: str = "pass",
    more: str = "",
    on_line: str = "send()",
    before: str = "",
) -> Program:
    source = PRODUCER.format(wait_in_handler=wait_in_handler, more=more, on_line=on_line, before=before)
    program = Program(settings, source, folder)
    program.read_until("sent")
    return program


@pytest.mark.parametrize("before", ["", "from gevent import monkey; monkey.patch_all()"], ids=["threads", "gevent"])
@pytest.mark.parametrize(
    "slow",
    [
        {"wait_in_handler": "wait()"},
        {"more": 'logging.getLogger("limetask.amqp.connection").addFilter(lambda record: wait())'},
        {"more": "logging.setLogRecordFactory(lambda *args: wait() and logging.LogRecord(*args))"},
    ],
    ids=["handler", "filter", "record factory"],
)
def test_users_logging_does_not_hold_up_sends(
    settings: Settings, tmp_path: Path, slow: dict[str, str], before: str
) -> None:
    """While a line that says that the connection is lost is being written, it is opened again, and tasks are sent."""
    with proxy_to(settings.broker_url) as (proxy, url):
        running = producer(replace(settings, broker_url=url, send_timeout=5.0), tmp_path, before=before, **slow)
        proxy.cut()
        if "wait_in_handler" in slow:
            eventually((tmp_path / "has-begun").exists)
        for _ in range(3):
            running.write("send")
            assert "line:" not in running.read_until("sent")
        (tmp_path / "go-on").touch()
        running.read_until("line: the connection to the broker is lost")
        running.output()
    assert queue_length(settings.broker_url, Names(settings.namespace).task_queue("default")) == 4


def test_a_forked_process_has_its_lines_too(settings: Settings, tmp_path: Path) -> None:
    """The thread that writes them is not there after a fork: another one is started."""
    on_line = "os.fork() and os.wait() or send()"
    with proxy_to(settings.broker_url) as (proxy, url):
        running = producer(replace(settings, broker_url=url), tmp_path, on_line=on_line)
        for _ in range(2):  # the parent's thread, then that of a child, and then the one of its child
            proxy.cut()
            running.read_until("line: the connection to the broker is lost")
            running.write("fork")
            running.read_until("sent")
        proxy.cut()
        running.read_until("line: the connection to the broker is lost")
        running.output()


def test_the_lines_of_a_programs_last_moment_are_written(settings: Settings, tmp_path: Path) -> None:
    """What waits to be written at the end of a program is written."""
    with proxy_to(settings.broker_url) as (proxy, url):
        slow = "time.sleep(0.5)"
        running = producer(replace(settings, broker_url=url), tmp_path, wait_in_handler=slow, on_line="sys.exit()")
        proxy.cut()
        eventually((tmp_path / "has-begun").exists)
        running.write("end")
        assert "line: the connection to the broker is lost" in running.output()


def test_a_line_that_is_never_written_does_not_keep_a_program(settings: Settings, tmp_path: Path) -> None:
    """A filter that never returns: the program waits for some seconds, and ends."""
    never = 'logging.getLogger("limetask.amqp.connection").addFilter(lambda _: print("begun", flush=True) or wait())'
    with proxy_to(settings.broker_url) as (proxy, url):
        running = producer(replace(settings, broker_url=url), tmp_path, more=never)
        proxy.cut()
        running.read_until("begun")
        assert "line:" not in running.output()


def test_a_producers_configuration_may_disable_limetask(settings: Settings, tmp_path: Path) -> None:
    """In a program of one's own limetask's loggers are as any other's."""
    program = """
        import limetask, logging.config
        from limetask.amqp import connection

        logging.config.dictConfig({"version": 1})
        print(connection.logger.logger.disabled, connection.logger.isEnabledFor(logging.ERROR))
    """
    assert output_of(settings, program, tmp_path) == "True False\n"
