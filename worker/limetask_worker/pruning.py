"""Deletes the statuses that have expired."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from limetask_worker.patient_store import PatientStore

_EVERY_SECONDS = 600.0
_ROWS = 1000
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
        before = datetime.now(UTC) - self._retention
        while await self._store.prune(before, _ROWS) == _ROWS:
            await asyncio.sleep(_PAUSE_SECONDS)
