"""The recorder's word on tasks that were delivered before, or perhaps sent twice: may this worker run them?"""

from __future__ import annotations

import asyncio
import logging

from limetask.amqp import Connection
from limetask.errors import StoreError
from limetask.message import Claim, Decision, Released, Verdict
from limetask.records import encode_verdict
from limetask.topology import Names
from limetask_worker.losses import Losses
from limetask_worker.patient_store import PatientStore

logger = logging.getLogger(__name__)

# A message comes again as soon as its worker is gone, the news of what had begun there a little later.
_NEWS_SECONDS = 1.0

_Key = tuple[str, int, str]


class Verdicts:
    """Decides claims, one after the other. To decide one twice changes nothing, so whoever hears nothing asks again."""

    def __init__(
        self, store: PatientStore, publishing: Connection, names: Names, losses: Losses, max_deliveries: int
    ) -> None:
        self._store = store
        self._publishing = publishing
        self._names = names
        self._losses = losses
        self._max_deliveries = max_deliveries
        self._deferred: dict[_Key, tuple[Claim, str]] = {}
        self._deciding: set[asyncio.Task[None]] = set()

    async def decide(self, claim: Claim) -> None:
        """Decide whether a worker may run a task, and tell it.

        What another worker has started waits for a moment: the news may be on its way that this one is dead.
        """
        key = claim.start.task_id, claim.start.attempt, claim.reply_to
        self._deferred.pop(key, None)
        verdict = await self._claim(claim, take_over=False)
        owner = verdict.worker
        if verdict.decision is not Decision.STARTED_ELSEWHERE:
            self._answer(claim, verdict)
        elif owner is None or owner == claim.start.worker or self._losses.is_dead(owner):
            self._answer(claim, await self._claim(claim, take_over=True))
        else:
            self._deferred[key] = claim, owner
            asyncio.get_running_loop().call_later(_NEWS_SECONDS, self._decide_deferred, key, claim)

    def decide_those_against(self, worker: str) -> None:
        """Decide at once what waited for news of this worker."""
        for key, (claim, owner) in list(self._deferred.items()):
            if owner == worker:
                self._decide_deferred(key, claim)

    async def take_back(self, released: Released) -> None:
        """Forget a start that was recorded for a worker that has not begun it."""
        await self._store.release([released])

    def _decide_deferred(self, key: _Key, claim: Claim) -> None:
        waiting, owner = self._deferred.get(key, (None, ""))
        if waiting is claim:
            del self._deferred[key]
            deciding = asyncio.get_running_loop().create_task(self._decide_at_last(claim, owner))
            self._deciding.add(deciding)
            deciding.add_done_callback(self._on_decided)

    def _on_decided(self, deciding: asyncio.Task[None]) -> None:
        self._deciding.discard(deciding)
        error = None if deciding.cancelled() else deciding.exception()
        if isinstance(error, StoreError):
            logger.error("a claim could not be decided: %s", error)
        elif error is not None:
            raise error

    async def _decide_at_last(self, claim: Claim, owner: str) -> None:
        take_over = claim.may_run_again or self._losses.is_gone(owner)
        self._answer(claim, await self._claim(claim, take_over=take_over))

    async def _claim(self, claim: Claim, *, take_over: bool) -> Verdict:
        verdict = await self._store.claim(claim, self._max_deliveries, take_over=take_over)
        await self._losses.note_starts([claim.start])
        return verdict

    def _answer(self, claim: Claim, verdict: Verdict) -> None:
        if self._names.is_reply_key(claim.reply_to):
            sent = self._publishing.publish(self._names.events_exchange, claim.reply_to, encode_verdict(verdict))
            sent.add_done_callback(_note_failure)


def _note_failure(sent: asyncio.Future[None]) -> None:
    if sent.exception() is not None:
        logger.debug("an answer did not arrive: %s", sent.exception())
