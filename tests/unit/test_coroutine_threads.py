"""The threads beside the loop on which coroutines run."""

from __future__ import annotations

import asyncio
import threading

import pytest

from limetask_worker.loop_thread import LoopThread

pytestmark = pytest.mark.usefixtures("coroutine_loops")

DEADLINE = 20.0


def refuse(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


async def in_threads(calls: int) -> list[str]:
    names = [asyncio.to_thread(lambda: threading.current_thread().name) for _ in range(calls)]
    return await asyncio.gather(*names)


def test_without_more_threads_calls_wait_for_the_one_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit of processes no task fails because its application, or its own to_thread, wants a thread."""
    loop = LoopThread("coroutine-tasks")
    with monkeypatch.context() as limit:
        limit.setattr(threading.Thread, "start", refuse)
        names = loop.submit(in_threads(5)).result(DEADLINE)
    assert set(names) == {"coroutine-tasks_0"}
    loop.stop()


def test_without_any_thread_it_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts it hears of that before there is work."""
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        LoopThread("coroutine-tasks")
