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
    """Give the root logger its handlers and level back after a test that configures logging."""
    root, alembic = logging.getLogger(), logging.getLogger("alembic")
    handlers, level, alembic_level = list(root.handlers), root.level, alembic.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    alembic.setLevel(alembic_level)


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
