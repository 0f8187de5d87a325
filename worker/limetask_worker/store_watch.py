"""Whether all recorders write into one store: two that do not would each hide what the other has recorded."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from limetask.message import Echo
from limetask.store import StoreMark
from limetask_worker.patient_store import PatientStore

logger = logging.getLogger(__name__)

_LOOK_EVERY_SECONDS = 1.0
_MARK_EVERY_SECONDS = 30.0
_STALE_SECONDS = 100.0
_REPEAT_SECONDS = 3600.0
_MOST_KNOWN = 100


class StoreWatch:
    """Marks the store while its recorder is the active one, and complains when recorders have different stores.

    The active recorder knows by the echoes of those that stand by, and these by the mark in their store, which nobody
    renews. `shown` is the store's URL without its password.
    """

    def __init__(self, store: PatientStore, recorder: str, shown: str, is_active: Callable[[], bool | None]) -> None:
        """`is_active` returns None while nobody knows, as without a connection."""
        self._store = store
        self._recorder = recorder
        self._shown = shown
        self._is_active = is_active
        self._id: str | None = None
        self._marked_at = float("-inf")
        self._seen: StoreMark | None = None
        self._fresh_at = time.monotonic()
        self._said_at: dict[str, float] = {}

    async def open(self) -> None:
        """Learn which store it is. Its schema must be there."""
        mark = await self._store.mark()
        self._id = None if mark is None else mark.id

    def echo(self) -> Echo:
        """Return what this recorder says of itself through the results queue."""
        return Echo(self._recorder, time.monotonic(), self._id, self._shown)

    def is_ours(self, echo: Echo) -> bool:
        """Return True for what this recorder has sent to itself; anybody may send what has not been sent yet."""
        return echo.recorder == self._recorder and echo.sent_at <= time.monotonic()

    def note_echo(self, echo: Echo) -> None:
        """Hear another recorder, which stands by for this one, and complain if its store is another."""
        if echo.recorder != self._recorder and echo.store_id is not None and echo.store_id != self._id:
            self._complain(
                echo.recorder,
                f"recorder {echo.recorder} stands by for this one with another status store, {echo.store}: this one "
                f"writes to {self._shown}. Whoever reads one of them does not see what was recorded into the other: "
                "give all workers and producers the same LIMETASK_STORE_URL",
            )

    async def watch_for_ever(self) -> None:
        """Mark the store, or look whether the active recorder does."""
        while True:
            match self._is_active():
                case True:
                    await self._mark()
                case False:
                    await self._look()
                case None:
                    self._fresh_at = time.monotonic()
            await asyncio.sleep(_LOOK_EVERY_SECONDS)

    async def _mark(self) -> None:
        self._fresh_at = time.monotonic()
        if self._fresh_at - self._marked_at >= _MARK_EVERY_SECONDS:
            self._marked_at = self._fresh_at
            await self._store.note_recorder(self._recorder, datetime.now(UTC))

    async def _look(self) -> None:
        now = time.monotonic()
        if now - self._fresh_at < _STALE_SECONDS:
            return
        mark = await self._store.mark()
        if mark != self._seen:
            self._seen, self._fresh_at = mark, now
            return
        self._complain(
            "",
            f"this recorder stands by, and the active one has not written to {self._shown} for {_STALE_SECONDS:g} s or "
            "more: it cannot, or it is older than this one, or its LIMETASK_STORE_URL is another. All workers and "
            "producers need the same one: `limetask doctor` tells more",
        )

    def _complain(self, about: str, problem: str) -> None:
        now = time.monotonic()
        if now - self._said_at.get(about, float("-inf")) >= _REPEAT_SECONDS:
            if len(self._said_at) >= _MOST_KNOWN:
                self._said_at.clear()
            self._said_at[about] = now
            logger.error("%s", problem)
