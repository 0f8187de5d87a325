"""Closing a connection whose library keeps to itself that it was cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from limetask import Settings
from limetask.aio import session as session_module
from limetask.aio.connection import Connection
from limetask.aio.session import Session
from limetask.errors import ConnectionLostError

DEADLINE = 10.0


async def raising_something_else() -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise ConnectionError("the broker has refused the connection just then") from None


async def forgetting_it() -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return


async def nothing() -> None:
    return


class Stubborn:
    """Stands for aio-pika's connection, which keeps a cancellation to itself."""

    stubbornly: Callable[[], Awaitable[None]]
    at = "connect"

    def __init__(self, *_: Any, **__: Any) -> None:
        self.kwargs: dict[str, Any] = {}

    async def connect(self) -> None:
        await (Stubborn.stubbornly() if self.at == "connect" else nothing())

    async def close(self) -> None:
        return


@pytest.mark.parametrize("stubbornly", [raising_something_else, forgetting_it])
@pytest.mark.parametrize("at", ["connect", "open_channel", "on_open"])
def test_a_connection_that_is_being_opened_can_be_closed(
    stubbornly: Callable[[], Awaitable[None]], at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends, and does not go on to connect for ever, whatever the library makes of the cancellation."""
    monkeypatch.setattr(Stubborn, "stubbornly", staticmethod(stubbornly), raising=False)
    monkeypatch.setattr(Stubborn, "at", at)
    monkeypatch.setattr(session_module, "Connection", Stubborn)

    class StubbornSession(Session):
        def __init__(self, *_: Any) -> None:
            self.closed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def open_channel(self) -> None:
            await (stubbornly() if at == "open_channel" else nothing())

        async def declare(self, _wanted: object) -> None:
            return

        async def close(self) -> None:
            return

    monkeypatch.setattr(session_module, "Session", StubbornSession)

    async def scenario() -> None:
        async def on_open(_session: Session) -> None:
            await (stubbornly() if at == "on_open" else nothing())

        connection = Connection(Settings(), "test", on_open=on_open)
        opening = asyncio.ensure_future(connection.ready(DEADLINE))
        while not any(task.get_name() == "limetask connection" for task in asyncio.all_tasks()):
            await asyncio.sleep(0)
        for _ in range(10):  # the task stands where it will be cancelled
            await asyncio.sleep(0)
        async with asyncio.timeout(DEADLINE):
            await connection.close()
        with pytest.raises(ConnectionLostError, match="closed"):
            await opening

    asyncio.run(scenario())


def test_a_call_that_does_not_end_with_its_session_is_left_alone() -> None:
    """Whoever waits for it hears why the session has ended."""

    async def scenario() -> None:
        session = object.__new__(Session)
        session.closed = asyncio.get_running_loop().create_future()
        session._calls = set()
        answer = asyncio.ensure_future(session._answer_to(never_ending()))
        await asyncio.sleep(0)
        session._end(ConnectionLostError("cut"))
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(ConnectionLostError, match="cut"):
                await answer
        release.set()

    release = asyncio.Event()

    async def never_ending() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    asyncio.run(scenario())
