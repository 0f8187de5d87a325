"""The listener for the ends of sent tasks, on a connection that does not come about."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from limetask import Settings
from limetask import listener as listener_module
from limetask.ends import Ends
from limetask.errors import ConnectionLostError
from limetask.listener import Listener


class Connecting:
    """A connection that is never ready, and says why when it is closed."""

    def __init__(self, *_: Any) -> None:
        self._closed = asyncio.Event()

    def set_reply_queue(self, queue: Any) -> None:
        pass

    async def ready(self, timeout: float) -> None:
        await self._closed.wait()
        raise ConnectionLostError("the connection was closed")

    async def close(self) -> None:
        self._closed.set()
        await asyncio.sleep(0)


def test_a_listener_that_is_closed_while_it_connects_has_nothing_to_say(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever calls `configure` meanwhile is not warned that nobody listens: nobody is to."""
    monkeypatch.setattr(listener_module, "Connection", Connecting)

    async def scenario() -> None:
        listener = Listener(Settings(), "limetask.reply.abc", Ends())
        listener.start()
        await asyncio.sleep(0)
        await listener.close()
        await asyncio.sleep(0)

    asyncio.run(scenario())
    assert caplog.messages == []
