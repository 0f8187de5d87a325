"""Unit tests share no state: every one begins without declared tasks and without settings."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator

import pytest

from limetask import handlers, registry, settings
from tests.unit.works import join_coroutine_threads


@pytest.fixture(autouse=True)
def _nothing_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registries are the process's: each test has empty ones."""
    monkeypatch.setattr(registry, "_declared", {})
    monkeypatch.setattr(handlers, "_declared", {})


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the settings of its environment or of another test."""
    monkeypatch.setattr(settings, "_configured", None)
    for variable in [name for name in os.environ if name.startswith("LIMETASK_")]:
        monkeypatch.delenv(variable)


@pytest.fixture
def _restored_logging() -> Iterator[None]:
    """Give loggers what they had, the root's handlers, levels and disabling, back after a test that configures them."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    levels = {name: logging.getLogger(name).level for name in ("", "alembic", "limetask", "limetask_worker")}
    loggers = [made for made in logging.Logger.manager.loggerDict.values() if isinstance(made, logging.Logger)]
    disabled = {made: made.disabled for made in loggers}
    yield
    root.handlers[:] = handlers
    for made in loggers:
        made.disabled = disabled[made]
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def coroutine_loops(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[asyncio.AbstractEventLoop]]:
    """The loops that executors have made: after the test their threads have ended and they are closed."""
    made: list[asyncio.AbstractEventLoop] = []
    new_event_loop = asyncio.new_event_loop

    def recorded() -> asyncio.AbstractEventLoop:
        made.append(new_event_loop())
        return made[-1]

    monkeypatch.setattr(asyncio, "new_event_loop", recorded)
    yield made
    join_coroutine_threads()
    for loop in made:
        loop.close()
