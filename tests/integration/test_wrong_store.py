"""A program has another status store than the workers: somebody says so."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import pytest

from limetask import Settings, Status, configure, get_status, ids
from limetask.amqp import Connection
from limetask.store import Store
from limetask_worker import schema, store_watch
from limetask_worker.recorder import Recorder

DEADLINE = 30.0
WITH_ANOTHER = "with another status store"
NOT_WRITTEN = "the active one has not written to"


@asynccontextmanager
async def recording(settings: Settings, name: str) -> AsyncIterator[None]:
    """Run a recorder."""
    consuming, publishing = Connection(settings, f"{name} consuming"), Connection(settings, f"{name} publishing")
    recorder, stop = Recorder(settings, name, consuming, publishing), asyncio.Event()
    await recorder.open()
    await consuming.ready(DEADLINE)
    await publishing.ready(DEADLINE)
    await recorder.start()
    running = asyncio.ensure_future(recorder.run(stop))
    try:
        async with asyncio.timeout(DEADLINE):
            yield
    finally:
        stop.set()
        await running
        await consuming.close()
        await publishing.close()
        recorder.close()


async def marked_by(settings: Settings, recorder: str) -> None:
    """Return when this recorder has said in the store that it writes there."""
    with closing(Store(settings.store_url)) as store:
        while (mark := store.mark()) is None or mark.recorder != recorder:
            await asyncio.sleep(0.02)


async def marked_again(settings: Settings, times: int) -> None:
    """Return when the mark has been renewed so often, each time after a tenth of a second or more."""
    seen: set[object] = set()
    with closing(Store(settings.store_url)) as store:
        while len(seen) <= times:
            seen.add(store.mark())
            await asyncio.sleep(0.02)


async def said(caplog: pytest.LogCaptureFixture, *texts: str) -> None:
    """Return when all of this has been logged."""
    while not all(text in caplog.text for text in texts):
        await asyncio.sleep(0.02)


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes minutes takes moments here."""
    monkeypatch.setattr(store_watch, "_LOOK_EVERY_SECONDS", 0.05)
    monkeypatch.setattr(store_watch, "_MARK_EVERY_SECONDS", 0.1)
    monkeypatch.setattr(store_watch, "_STALE_SECONDS", 1.0)


def test_recorders_with_two_stores_say_so(
    settings_for_each_store: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The active one and the one that stands by: both name what they have, and none repeats it all the time."""
    one = replace(settings_for_each_store, worker_timeout=1.2)
    other = replace(one, store_url=f"sqlite:///{tmp_path}/other.db")

    async def scenario() -> None:
        async with recording(one, "host:1:one"):
            await marked_by(one, "host:1:one")
            async with recording(other, "host:2:other"):
                await said(caplog, WITH_ANOTHER, NOT_WRITTEN)
                await marked_again(one, times=15)  # time enough to say it again

    asyncio.run(scenario())
    assert [caplog.text.count(text) for text in (WITH_ANOTHER, NOT_WRITTEN)] == [1, 1]
    assert f"host:2:other stands by for this one with another status store, {other.store_url}" in caplog.text


def test_recorders_with_one_store_say_nothing(
    settings_for_each_store: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """The one that stands by sees the other's mark, and takes over when that one is gone."""
    settings = replace(settings_for_each_store, worker_timeout=1.2)

    async def scenario() -> None:
        async with AsyncExitStack() as second:
            async with recording(settings, "host:1:one"):
                await marked_by(settings, "host:1:one")
                await second.enter_async_context(recording(settings, "host:2:other"))
                await marked_again(settings, times=25)  # for longer than a store may be without a new mark
            await marked_by(settings, "host:2:other")

    asyncio.run(scenario())
    assert WITH_ANOTHER not in caplog.text
    assert NOT_WRITTEN not in caplog.text


@pytest.fixture
def old_task() -> str:
    """The id of a task that was sent half a minute ago, and that nobody has recorded."""
    return ids.new_task_id("acme", time.time() - 30)


def test_a_reader_whose_store_was_never_written_says_so(
    settings_for_each_store: Settings, old_task: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The task is pending as far as this store knows: it is said once, with the store and what to do."""
    with caplog.at_level(logging.WARNING, "limetask"):
        assert [get_status(old_task, "acme").status for _ in range(3)] == [Status.PENDING] * 3
    [message] = [record.getMessage() for record in caplog.records]
    assert f"task {old_task} is PENDING" in message
    assert "nothing was ever recorded there" in message
    assert "LIMETASK_STORE_URL of the workers" in message
    password = settings_for_each_store.store_url.partition("://")[2].partition("@")[0].partition(":")[2]
    assert not password or password not in message


def test_a_reader_whose_store_nobody_writes_to_says_so(
    settings: Settings, old_task: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that was used once, and is another than the recorder's."""
    schema.upgrade(settings.store_url)
    with caplog.at_level(logging.WARNING, "limetask"):
        assert get_status(old_task, "acme").status is Status.PENDING
    assert "no recorder has said that it writes there" in caplog.text


def test_a_reader_says_nothing_of_what_was_sent_just_now(
    settings: Settings, old_task: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody has started a worker yet, or the recorder is at work, and the task waits."""
    assert get_status(ids.new_task_id("acme"), "acme").status is Status.PENDING

    async def scenario() -> None:
        async with recording(settings, "host:1:one"):
            await marked_by(settings, "host:1:one")
            configure(settings)
            assert (await asyncio.to_thread(get_status, old_task, "acme")).status is Status.PENDING

    asyncio.run(scenario())
    assert [record for record in caplog.records if record.name == "limetask.reading"] == []
