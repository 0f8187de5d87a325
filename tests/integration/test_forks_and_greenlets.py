"""Processes forked without Python's hooks, as uWSGI does, and programs under gevent."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from limetask import Settings
from limetask.topology import Names
from tests.broker import subscriber, take_all
from tests.programs import output_of

# The C library's own fork: Python does not hear of it.
FORKS = """
    import asyncio, ctypes, limetask, os, sys
    from limetask import aio

    async def send(what):
        limetask.send_task("a.task", "acme", what)
        await aio.send_task("a.task", "acme", what)
        limetask.publish_event("acme", "shop.order.paid.v1")

    fork = ctypes.PyDLL(None).fork
    runner = asyncio.Runner()
    runner.run(send("master"))
    children = []
    for number in range(2):
        child = fork()
        if child == 0:
            try:
                for _ in range(3):
                    asyncio.run(send(f"child {number}"))
                limetask.client.close_default_client()
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    for child in children:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    runner.run(send("master again"))
    runner.run(aio.close())
    runner.close()
"""


def test_processes_that_were_forked_without_pythons_hooks_send(settings: Settings, tmp_path: Path) -> None:
    """Parent and children each send on connections of their own, with ids that no other process gives to messages."""
    with subscriber(settings.broker_url, settings.namespace, "shop.#") as events:
        assert output_of(settings, FORKS, tmp_path) == "0\n0\n"
        told = events.wait_for(8)
    assert len({event["id"] for event in told}) == 8
    letters = take_all(settings.broker_url, Names(settings.namespace).task_queue("default"), 16)
    assert len({letter.headers["task_id"] for letter in letters}) == 16
    assert len({letter.message_id for letter in letters}) == 16


FORKED_WITH_A_CONNECTION = """
    import asyncio, os, psutil
    from limetask import aio

    def sockets():
        return [found for found in psutil.Process().net_connections(kind="tcp") if found.raddr]

    def forked(work):
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(tell, str(work()).encode())
            except BaseException as exc:
                os.write(tell, repr(exc).encode())
            finally:
                os._exit(0)
        os.close(tell)
        os.waitpid(child, 0)
        return os.read(told, 1000).decode()

    async def send():
        await aio.send_task("a.task", "acme")
        await aio.close()
        return "sent"

    async def main():
        async with aio.subscribe("shop.#", app="acme") as events:
            await aio.send_task("a.task", "acme")
            print(len(sockets()) > 0, forked(lambda: len(sockets())))
            print(await asyncio.to_thread(forked, lambda: len(sockets())))
            print(await asyncio.to_thread(forked, lambda: asyncio.run(send())))
            await aio.publish_event("acme", "shop.order.paid.v1")
            async for event in events:
                print(event.routing_key, flush=True)
                break
        await aio.send_task("a.task", "acme")
        await aio.close()

    {run}(main())
"""


@pytest.mark.parametrize("run", ["asyncio.run", "__import__('uvloop').run"], ids=["asyncio", "uvloop"])
def test_a_forked_process_keeps_no_connection_of_the_asyncio_client(
    settings: Settings, tmp_path: Path, run: str
) -> None:
    """Its parent's death would not be noticed otherwise. It sends on one of its own, and the parent's go on."""
    program = FORKED_WITH_A_CONNECTION.replace("{run}", run)
    assert output_of(settings, program, tmp_path) == "True 0\n0\nsent\nshop.order.paid.v1\n"
    assert len(take_all(settings.broker_url, Names(settings.namespace).task_queue("default"), 3)) == 3


PATCHED_BEFORE = """
    from gevent import monkey; monkey.patch_all()
    import limetask
"""
PATCHED_AFTER = """
    import limetask
    from gevent import monkey; monkey.patch_all()
"""
GREENLETS = """
    import asyncio, gevent, sys

    ticks = 0

    def tick():
        global ticks
        while True:
            gevent.sleep(0.01)
            ticks += 1

    gevent.spawn(tick)
"""
patched = pytest.mark.parametrize("patched", [PATCHED_BEFORE, PATCHED_AFTER])


@patched
def test_greenlets_send(settings: Settings, tmp_path: Path, patched: str) -> None:
    """Many at once, again and again, and no greenlet finds limetask's loop running where it is."""
    program = """
    def send(number):
        for _ in range(10):
            status = limetask.send_task("a.task", "acme", number)
            assert limetask.get_status(status.id, "acme").status == "PENDING"
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return "no loop"

    sending = [gevent.spawn(send, number) for number in range(20)]
    gevent.joinall(sending, raise_error=True)
    print({one.value for one in sending}, len(limetask.send_tasks([limetask.TaskCall("a.task", "acme")] * 1000)))
    """
    assert output_of(settings, patched + GREENLETS + program, tmp_path) == "{'no loop'} 1000\n"
    assert len(take_all(settings.broker_url, Names(settings.namespace).task_queue("default"), 1200)) == 1200


@pytest.fixture
def silent_url() -> Iterator[str]:
    """The URL of something that accepts connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield f"amqp://guest:guest@127.0.0.1:{silent.getsockname()[1]}/"


@patched
def test_other_greenlets_go_on_while_one_waits_for_the_broker(
    settings: Settings, tmp_path: Path, patched: str, silent_url: str
) -> None:
    """The hub is not blocked by a send, nor by a wait."""
    program = """
    try:
        limetask.send_task("a.task", "acme")
    except limetask.BrokerError:
        print("sending:", ticks > 5)
    status = limetask.get_status(limetask.ids.new_task_id("acme"), "acme")
    ticks = 0
    try:
        status.wait(1)
    except TimeoutError:
        print("waiting:", ticks > 5)
    """
    impatient = replace(settings, broker_url=silent_url, send_timeout=1.0)
    output = output_of(impatient, patched + GREENLETS + program, tmp_path)
    assert "sending: True" in output
    assert "waiting: True" in output
