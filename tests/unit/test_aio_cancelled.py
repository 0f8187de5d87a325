"""Closing a connection whose library keeps to itself that it was cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from limetask import Settings
from limetask.aio import session as session_module
from limetask.aio.connection import Connection
from limetask.aio.session import Session
from limetask.errors import ConnectionLostError

DEADLINE = 10.0


class Place:
    """Where the library waits. It keeps the first cancellation to itself: it forgets it, or raises `error` instead."""

    def __init__(self, error: Exception | None) -> None:
        self.reached = asyncio.Event()
        self._error = error

    async def wait(self) -> None:
        is_first = not self.reached.is_set()
        self.reached.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not is_first:
                raise
            if self._error is not None:
                raise self._error from None


@pytest.mark.parametrize("error", [None, ConnectionError("the broker has refused the connection just then")])
@pytest.mark.parametrize("at", ["connect", "open_channel", "on_open"])
def test_a_connection_that_is_being_opened_can_be_closed(
    error: Exception | None, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends, and does not go on to connect for ever, whatever the library makes of the cancellation."""
    place = Place(error)

    async def passes(where: str) -> None:
        if where == at:
            await place.wait()

    class StubbornConnection:
        """Stands for aio-pika's."""

        def __init__(self, *_: Any, **__: Any) -> None:
            self.kwargs: dict[str, Any] = {}

        async def connect(self) -> None:
            await passes("connect")

        async def close(self) -> None:
            return

    class StubbornSession(Session):
        def __init__(self, *_: Any) -> None:
            self.closed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def open_channel(self) -> None:
            await passes("open_channel")

        async def declare(self, _wanted: object) -> None:
            return

        async def close(self) -> None:
            return

    monkeypatch.setattr(session_module, "Connection", StubbornConnection)
    monkeypatch.setattr(session_module, "Session", StubbornSession)

    async def scenario() -> None:
        connection = Connection(Settings(), "test", on_open=lambda _session: passes("on_open"))
        opening = asyncio.ensure_future(connection.ready(DEADLINE))
        async with asyncio.timeout(DEADLINE):
            await place.reached.wait()
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
        await begun.wait()
        session._end(ConnectionLostError("cut"))
        try:
            async with asyncio.timeout(DEADLINE):
                with pytest.raises(ConnectionLostError, match="cut"):
                    await answer
        finally:
            release.set()

    begun, release = asyncio.Event(), asyncio.Event()

    async def never_ending() -> None:
        begun.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    asyncio.run(scenario())
