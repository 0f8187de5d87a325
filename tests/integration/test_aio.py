"""`limetask.aio` against a real broker, beyond what `tests/contract/test_client.py` asks of both clients."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import limetask
from limetask import (
    Settings,
    Status,
    StoreError,
    TaskCall,
    aio,
    configure,
)
from limetask.aio.session import Session
from limetask.errors import ConnectionLostError
from limetask.topology import Names
from tests.broker import queue_length, take_all
from tests.loops import run, take
from tests.proxy import proxy_to
from tests.worker import Worker, environment_of


@contextlib.contextmanager
def loop_of_ones_own() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner
        runner.run(aio.close())


def test_subscribers_hear_of_ends(settings: Settings, start_worker: Callable[..., Worker]) -> None:
    """Completions of a real worker arrive as Events with all that their statuses have."""
    start_worker(settings, "shop", "--processes", "1")

    async def main() -> None:
        async with aio.subscribe("core.task.#", app="acme") as events:
            other = await aio.send_task("shop.tasks.add", "other", 1, 1)
            sent = await aio.send_tasks(TaskCall("shop.tasks.add", "acme", (1, number)) for number in range(20))
            heard = await take(events, 20)
            await aio.wait(other, 30.0)
        assert {event.task_id for event in heard} == {status.id for status in sent}
        assert {event.app for event in heard} == {"acme"}
        assert sorted(event.result for event in heard) == list(range(1, 21))
        assert {event.status for event in heard} == {Status.SUCCESS}

    run(main())


def test_waiting_hears_of_the_end_without_a_store(settings: Settings, start_worker: Callable[..., Worker]) -> None:
    """The reply queue alone tells, when the store cannot be read from here."""
    start_worker(settings, "shop", "--processes", "1")
    configure(replace(settings, store_url="postgresql://nobody:nothing@127.0.0.1:1/none"))

    async def main() -> None:
        while True:  # the first ends come before the reply queue is there
            sent = await aio.send_task("shop.tasks.add", "acme", 1, 2)
            with contextlib.suppress(StoreError):
                assert (await aio.wait(sent, 1.0)).result == 3
                return

    run(main())


def test_waiting_finds_the_end_in_the_store(settings: Settings, start_worker: Callable[..., Worker]) -> None:
    """A status from the synchronous client, whose reply queue is another, is waited for as well."""
    start_worker(settings, "shop", "--processes", "1")
    sent = limetask.send_task("shop.tasks.add", "acme", 1, 2)
    ended = run(aio.wait(sent, 30.0))
    assert ended.result == 3
    assert ended.refresh().result == 3, "statuses from here have the synchronous methods too"


def test_an_error_that_nobody_foresaw_is_tried_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the libraries have never raised so far does not end the attempts to connect."""

    async def raise_unforeseen(_session: Session) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        configure(replace(settings, send_timeout=5.0))
        with monkeypatch.context() as patch:
            patch.setattr(Session, "open_channel", raise_unforeseen)
            with pytest.raises(ConnectionLostError, match="ZeroDivisionError"):
                await aio.publish_event("acme", "shop.paid.v1")
        await aio.publish_event("acme", "shop.paid.v1")

    run(main())


def test_several_loops_in_turn(settings: Settings, recwarn: pytest.WarningsRecorder) -> None:
    """Each has its own connections; a loop that is left without `close` takes them with it, without a word."""
    loop_errors: list[str] = []

    async def main(close: bool) -> str:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: loop_errors.append(str(context)))
        status = await aio.send_task("a.task", "acme")
        with pytest.raises(TimeoutError):
            await aio.wait(status, 0.1)
        async with aio.subscribe("shop.#") as events:
            await aio.publish_event("acme", "shop.paid.v1")
            await take(events, 1)
        if close:
            await aio.close()
        return status.id

    sent = {asyncio.run(main(close=number % 2 == 0)) for number in range(4)}
    gc.collect()
    assert loop_errors == []
    assert not recwarn.list
    assert {letter.headers["task_id"] for letter in take_all(settings.broker_url, task_queue(settings), 4)} == sent


def task_queue(settings: Settings) -> str:
    return Names(settings.namespace).task_queue("default")


def test_other_settings_make_another_client(settings: Settings) -> None:
    """`configure` is heeded by the next call, and the former client's connections are closed."""
    with proxy_to(settings.broker_url) as (proxy, url), loop_of_ones_own() as runner:
        configure(replace(settings, broker_url=url))
        runner.run(aio.send_task("a.task", "acme"))
        configure(settings)
        runner.run(aio.send_task("a.task", "acme"))
        assert proxy.connections == 1
    assert queue_length(settings.broker_url, task_queue(settings)) == 2


def test_a_forked_process_makes_its_own_connections(settings: Settings) -> None:
    """After a fork, both parent and child go on sending."""
    with loop_of_ones_own() as runner:
        runner.run(aio.send_task("a.task", "acme", "before"))
        child = os.fork()
        if child == 0:
            try:
                run(aio.send_task("a.task", "acme", "child"))
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        runner.run(aio.send_task("a.task", "acme", "after"))
    assert len(take_all(settings.broker_url, task_queue(settings), 3)) == 3


def test_without_aio_pika_the_import_says_what_to_install() -> None:
    """`import limetask` goes without it, and `limetask.aio` names the extra."""
    program = "import sys; sys.modules['aio_pika'] = None; import limetask; import limetask.aio"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.stderr.splitlines()[-1] == 'ImportError: limetask.aio needs aio-pika: pip install "limetask[aio]"'


def test_the_pages_example_works(settings: Settings, start_worker: Callable[..., Worker]) -> None:
    """The program of docs/aio.md prints what the page says."""
    start_worker(settings, "shop", "--processes", "1")
    page = (Path(__file__).parents[2] / "docs" / "aio.md").read_text().replace("my_package", "shop")
    program, shown = re.findall(r"```(?:python|text)\n(.*?)```", page, re.DOTALL)
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environment_of(settings), capture_output=True, text=True, check=False
    )
    assert (ran.stdout, ran.stderr) == (shown, "")
