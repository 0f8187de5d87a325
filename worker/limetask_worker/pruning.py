"""Deletes the statuses that have expired, and what was remembered of starts that were taken back."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from limetask_worker.patient_store import PatientStore

_EVERY_SECONDS = 600.0
_ROWS = 1000
# The record of a start can come so late at most, as after a partition: each takes some 200 bytes meanwhile.
_TAKEN_BACK_FOR = timedelta(days=1)
_PAUSE_SECONDS = 0.05  # so that it is faster than tasks can come


class Pruning:
    """Deletes the oldest tasks in small batches, with pauses in which the recording goes on."""

    def __init__(self, store: PatientStore, retention_days: float) -> None:
        self._store = store
        self._retention = timedelta(days=retention_days)

    async def run_for_ever(self) -> None:
        while True:
            await self._prune()
            await asyncio.sleep(_EVERY_SECONDS)

    async def _prune(self) -> None:
        now = datetime.now(UTC)
        while await self._store.prune(now - self._retention, _ROWS) == _ROWS:
            await asyncio.sleep(_PAUSE_SECONDS)
        while await self._store.prune_taken_back(now - _TAKEN_BACK_FOR, _ROWS) == _ROWS:
            await asyncio.sleep(_PAUSE_SECONDS)
