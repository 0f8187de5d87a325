"""What goes on beside a process's work."""

from __future__ import annotations

import asyncio

import pytest

from limetask_worker import background
from limetask_worker.background import run_beside


def test_a_service_that_fails_begins_again(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """It says so, with the traceback, and the others go on; each ends when its task is cancelled."""
    monkeypatch.setattr(background, "_PAUSE_SECONDS", 0.0)
    begun: list[str] = []
    done = asyncio.Event()

    async def failing() -> None:
        begun.append("failing")
        if begun.count("failing") == 3:
            done.set()
            await asyncio.Event().wait()
        raise ValueError("a strange record")

    async def steady() -> None:
        begun.append("steady")
        await asyncio.Event().wait()

    async def main() -> list[bool]:
        services = run_beside([failing, steady])
        await asyncio.wait_for(done.wait(), 10)
        for service in services:
            service.cancel()
        await asyncio.wait(services)
        return [service.cancelled() for service in services]

    assert asyncio.run(main()) == [True, True]
    assert sorted(begun) == ["failing"] * 3 + ["steady"]
    assert caplog.text.count("failing has failed, and begins again") == 2
    assert "ValueError: a strange record" in caplog.text
