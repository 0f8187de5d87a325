"""A lone task's process that cannot be started for a while."""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from limetask import Settings, Status, ids
from limetask.amqp import Delivery
from limetask.arguments import encode_arguments
from limetask.codec import encode_task
from limetask.message import TaskIdentity, TaskMessage
from limetask.registry import TaskDeclaration
from limetask_worker import solo
from limetask_worker.control import ChildOptions
from limetask_worker.solo import SoloNotStartedError, SoloRunner
from limetask_worker.work import Work
from tests.worker import environment_of


@contextmanager
def no_free_descriptor() -> Iterator[None]:
    """Let this process open no more files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def add_one_and_two() -> Work:
    """A task that a worker with the package `shop` can run."""
    identity = TaskIdentity(ids.new_task_id("acme"), "shop.tasks.add", "acme", 1, None)
    envelope = encode_task(identity, encode_arguments((1, 2), {}, 1024))
    declaration = TaskDeclaration(
        lambda app, first, second: None, name="shop.tasks.add", acks_late=True, qos="default", time_limit=None
    )
    return Work(Delivery(1, 1, "", True, envelope), TaskMessage(identity, (1, 2), {}), declaration)


def test_it_waits_until_it_can_be_started(
    settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task is neither lost nor failed for that, and runs when there is a file descriptor again."""
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)

    async def run() -> bytes | None:
        with no_free_descriptor():
            running = asyncio.ensure_future(
                SoloRunner(ChildOptions("host.1", ("shop",))).run(add_one_and_two(), lambda: None)
            )
            async with asyncio.timeout(20):
                while "no process for a lone task could be started" not in caplog.text:
                    await asyncio.sleep(0.01)
        async with asyncio.timeout(60):
            outcome = await running
            await asyncio.wait(solo._ending)
        assert outcome.status is Status.SUCCESS
        return outcome.result

    with caplog.at_level(logging.ERROR):
        assert asyncio.run(run()) == b"3"


def test_it_is_given_up_when_no_process_gets_ready(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker may have the code, or the threads, that are missing here; the body has not begun."""
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    begun: list[str] = []

    async def run() -> None:
        runner = SoloRunner(ChildOptions("host.1", ("shop.there_is_no_such_module",)), patience=0.0)
        with pytest.raises(SoloNotStartedError, match="exit code 1"):
            async with asyncio.timeout(60):
                await runner.run(add_one_and_two(), lambda: begun.append("begun"))
        await asyncio.wait(solo._ending)

    asyncio.run(run())
    assert begun == []
