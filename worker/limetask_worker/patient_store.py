"""The status store as the recorder uses it: from its loop, and for as long as it takes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime
from typing import TypeVar

from limetask.database import store_errors
from limetask.errors import StoreError
from limetask.message import Claim, Completion, HandlerBindings, HandlerGone, Refused, Released, Started, Verdict
from limetask.store import Store, StoreMark
from limetask.store_tables import SCHEMA_VERSION
from limetask.store_url import parse_store_url
from limetask_worker.store_place import check_place
from limetask_worker.store_writer import RecordRejectedError, StoreWriter

logger = logging.getLogger(__name__)

T = TypeVar("T")

_RETRY_SECONDS = 1.0
_COMPLAIN_EVERY_SECONDS = 60.0


class PatientStore:
    """Does what StoreWriter does in a thread of its own, again and again while the store cannot be used.

    It belongs to one loop. Of the errors of StoreWriter only RecordRejectedError is raised.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._writer: StoreWriter | None = None

    async def open(self) -> None:
        """Bring the store's schema up to date. Raises ConfigurationError for a store that cannot be used."""
        await self._do(lambda: _bring_up_to_date(self._url))
        self._writer = StoreWriter(self._url)

    async def merge(self, records: Sequence[Started | Completion]) -> None:
        if records:
            await self._write(lambda writer: writer.merge(records))

    async def claim(self, claim: Claim, max_begun: int, *, take_over: bool) -> Verdict:
        return await self._write(lambda writer: writer.claim(claim, max_begun, take_over=take_over))

    async def claim_all(self, claims: Sequence[Claim], max_begun: int, *, take_over: bool) -> list[Verdict]:
        return await self._write(lambda writer: writer.claim_all(claims, max_begun, take_over=take_over))

    async def unheard_of(self, starts: Sequence[Started]) -> set[tuple[str, int]]:
        return await self._write(lambda writer: writer.unheard_of(starts)) if starts else set()

    async def release(self, starts: Sequence[Released]) -> set[tuple[str, int]]:
        return await self._write(lambda writer: writer.release(starts)) if starts else set()

    async def note_ended(self, worker: str) -> None:
        await self._write(lambda writer: writer.note_ended(worker))

    async def end_of_refused(self, refused: Refused) -> Completion | None:
        return await self._write(lambda writer: writer.end_of_refused(refused))

    async def running_under(self, worker: str) -> list[Started]:
        return await self._write(lambda writer: writer.running_under(worker))

    async def workers_running(self) -> list[str]:
        return await self._write(lambda writer: writer.workers_running())

    async def prune(self, before: datetime, limit: int) -> int:
        return await self._write(lambda writer: writer.prune(before, limit))

    async def prune_taken_back(self, before: datetime, limit: int) -> int:
        return await self._write(lambda writer: writer.prune_taken_back(before, limit))

    async def note_recorder(self, recorder: str, seen_at: datetime) -> None:
        await self._write(lambda writer: writer.note_recorder(recorder, seen_at))

    async def mark(self) -> StoreMark | None:
        return await self._write(lambda writer: writer.mark())

    async def merge_handlers(
        self, handlers: Sequence[HandlerBindings], heard_at: datetime
    ) -> dict[str, frozenset[str]]:
        return await self._write(lambda writer: writer.merge_handlers(handlers, heard_at))

    async def forget_bindings(self, name: str, bindings: Sequence[str]) -> None:
        await self._write(lambda writer: writer.forget_bindings(name, bindings))

    async def delete_handler(self, gone: HandlerGone) -> None:
        await self._write(lambda writer: writer.delete_handler(gone))

    def close(self) -> None:
        self._thread.shutdown(wait=True)
        if self._writer is not None:
            self._writer.close()

    async def _write(self, work: Callable[[StoreWriter], T]) -> T:
        writer = self._writer
        if writer is None:
            raise RuntimeError("PatientStore.open has not been called")
        return await self._do(lambda: work(writer))

    async def _do(self, work: Callable[[], T]) -> T:
        complaint = _Complaint()
        while True:
            try:
                done = await asyncio.get_running_loop().run_in_executor(self._thread, work)
            except RecordRejectedError:
                raise
            except StoreError as exc:
                complaint.note(exc)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                complaint.end()
                return done


class _Complaint:
    """Says that the store cannot be used: at once, now and then while it lasts, and when it is over."""

    def __init__(self) -> None:
        self._begun: float | None = None
        self._said = 0.0

    def note(self, error: StoreError) -> None:
        now = time.monotonic()
        if self._begun is None:
            self._begun = self._said = now
            logger.error("the store cannot be used, records wait in the results queue: %s", error)
        elif now - self._said >= _COMPLAIN_EVERY_SECONDS:
            self._said = now
            logger.error("the store cannot be used for %.0f s now, records wait: %s", now - self._begun, error)

    def end(self) -> None:
        if self._begun is not None:
            logger.warning("the store can be used again, after %.0f s", time.monotonic() - self._begun)


def _bring_up_to_date(url: str) -> None:
    parsed = parse_store_url(url)
    with store_errors(parsed):
        check_place(parsed)
    with closing(Store(url)) as store:
        if store.schema_version() == SCHEMA_VERSION:
            return
    # Alembic takes longer to import than all the rest of a start.
    from limetask_worker.schema import upgrade

    upgrade(url)
