"""Programs that send when their main thread has ended, or while Python shuts down."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from limetask import Settings
from limetask.topology import Names
from tests.broker import queue_length
from tests.programs import Program, output_of
from tests.proxy import proxy_to

# From 3.12 on Python starts no new threads at the end of a program; the newest ones of each version wait longer.
MAY_START_NO_THREADS = sys.version_info[:2] == (3, 12)

SENDS = """
    import asyncio, atexit, limetask, sys, threading, time
    from concurrent.futures import ThreadPoolExecutor, thread
    from limetask import aio

    def send():
        try:
            status = limetask.send_task("a.task", "acme")
            print("sent", limetask.get_status(status.id, "acme").status, flush=True)
        except limetask.LimetaskError as exc:
            print(type(exc).__name__, exc, flush=True)

    async def send_by_aio():
        status = await aio.send_task("a.task", "acme")
        print("sent", (await aio.get_status(status.id, "acme")).status, flush=True)
        await aio.close()
"""
AFTER_MAIN = """
    def wait_and_send():
        threading.main_thread().join()
        {send}
    threading.Thread(target=wait_and_send).start()
"""
AT_EXIT = """
    atexit.register(send)
"""
IN_EXECUTOR = """
    def wait_and_send():
        while not thread._shutdown:
            time.sleep(0.01)
        send()
    ThreadPoolExecutor(1).submit(wait_and_send)
"""


@pytest.fixture
def by_name(settings: Settings) -> Settings:
    """Settings whose broker has a name that must be looked up, where it is on this machine."""
    return replace(settings, broker_url=settings.broker_url.replace("127.0.0.1", "localhost"))


@pytest.mark.parametrize("ending", [AFTER_MAIN.format(send="send()"), AT_EXIT, IN_EXECUTOR])
def test_a_first_task_is_sent_when_the_main_thread_has_ended(by_name: Settings, tmp_path: Path, ending: str) -> None:
    """It is sent; where Python starts no thread any more, the error says so, and not that there is no RabbitMQ."""
    output = output_of(by_name, SENDS + ending, tmp_path)
    if MAY_START_NO_THREADS and "sent" not in output:
        assert output.startswith("UnusableHereError limetask needs a thread, and Python starts none any more")
    else:
        assert output == "sent PENDING\n"
        assert queue_length(by_name.broker_url, Names(by_name.namespace).task_queue("default")) == 1


def test_aio_sends_when_the_main_thread_has_ended(by_name: Settings, tmp_path: Path) -> None:
    """A loop that goes on in another thread sends, and reads statuses, without its default executor."""
    output = output_of(by_name, SENDS + AFTER_MAIN.format(send="asyncio.run(send_by_aio())"), tmp_path)
    assert output == "sent PENDING\n"


@pytest.mark.parametrize("send", ["send()", "runner.run(send_by_aio())"])
def test_it_connects_again_when_the_main_thread_has_ended(by_name: Settings, tmp_path: Path, send: str) -> None:
    """A connection that is lost then is opened again."""
    program = f"""
    def go_on():
        with asyncio.Runner() as runner:
            {send}
            threading.main_thread().join()
            for _ in sys.stdin:
                {send}
    threading.Thread(target=go_on).start()
    """
    with proxy_to(by_name.broker_url) as (proxy, url):
        settings = replace(by_name, broker_url=url.replace("127.0.0.1", "localhost"))
        running = Program(settings, SENDS + program, tmp_path)
        running.read_until("sent PENDING")
        for _ in range(2):
            proxy.cut()
            running.write("again")
            running.read_until("sent PENDING")
        running.output()


@pytest.mark.parametrize("before", ["", "send()"])
def test_a_finalizer_that_sends_while_python_shuts_down_gets_an_error(
    settings: Settings, tmp_path: Path, before: str
) -> None:
    """Nothing can be sent then: it is told at once, and the program ends."""
    program = f"""
    class Late:
        def __del__(self):
            send()
    {before}
    sys.modules["a module that ends last"] = Late()
    """
    last = output_of(settings, SENDS + program, tmp_path).splitlines()[-1]
    assert last.startswith("UnusableHereError limetask cannot be used while Python shuts down: send before")
