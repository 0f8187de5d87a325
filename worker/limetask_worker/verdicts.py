"""The recorder's word on tasks that were delivered before, or perhaps sent twice: may this worker run them?"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from limetask.amqp import Connection
from limetask.errors import StoreError
from limetask.message import Claim, Decision, Released, Verdict
from limetask.records import encode_verdict
from limetask.topology import Names
from limetask_worker.handed_back import HandedBack, TaskKey
from limetask_worker.losses import Losses
from limetask_worker.patient_store import PatientStore
from limetask_worker.starts import start_of
from limetask_worker.timings import FORMER_HOLDER_SECONDS

logger = logging.getLogger(__name__)

# A message comes again as soon as its worker is gone, the news of what had begun there a little later.
_NEWS_SECONDS = 1.0
# A recorder that has stood by for this long may know nothing of the task any more, not even in the store.
_FORGOTTEN_SECONDS = 3600.0

_Key = tuple[str, int, str]


@dataclass
class _Deferred:
    """A claim that waits, for news of `owner` if another worker has started its task; since `due_at` for an echo."""

    claim: Claim
    owner: str | None
    due_at: float | None = None


class Verdicts:
    """Decides claims, one after the other. To decide one twice changes nothing, so whoever hears nothing asks again."""

    def __init__(
        self,
        store: PatientStore,
        publishing: Connection,
        names: Names,
        losses: Losses,
        handed_back: HandedBack,
        max_deliveries: int,
        send_echo: Callable[[], None],
    ) -> None:
        """`send_echo` sends a message to this recorder itself, by the queue of records: `note_echo` hears it."""
        self._store = store
        self._send_echo = send_echo
        self._echo_is_on_its_way = False
        self._publishing = publishing
        self._names = names
        self._losses = losses
        self._handed_back = handed_back
        self._max_deliveries = max_deliveries
        self._deferred: dict[_Key, _Deferred] = {}
        self._deciding: set[asyncio.Task[None]] = set()

    async def decide(self, claims: Sequence[Claim]) -> None:
        """Decide which of these claims' workers may run their tasks, and tell each.

        Two kinds wait for a moment: what another worker has started, since the news may be on its way that this one is
        dead; and what another worker may begin without asking, since the record of its start may be on its way. Raises
        RecordRejectedError if the store refuses one of them; those that were decided may be decided again.
        """
        # A process that has ended runs nothing more: recorded, its claim would be a start that nobody settles.
        # One that is asked again while it waits is the same question: begun anew, its wait might never end.
        claims = [one for one in claims if not self._losses.is_dead(one.start.worker) and not self._waits(one)]
        for claim in claims:
            self._deferred.pop(_key_of(claim), None)
        unheard_of = await self._unheard_of(claims)
        for claim in unheard_of.values():
            self._defer(claim, None, FORMER_HOLDER_SECONDS)
        await self._decide_now([claim for claim in claims if _key_of(claim) not in unheard_of])

    def _waits(self, claim: Claim) -> bool:
        deferred = self._deferred.get(_key_of(claim))
        return deferred is not None and deferred.claim == claim

    def hand_back(self, tasks: Iterable[TaskKey]) -> None:
        """Hear which tasks a worker has let go of: nobody is about to begin these without asking."""
        let_go = frozenset(tasks)
        self._handed_back.note(let_go)
        for key, deferred in list(self._deferred.items()):
            if deferred.owner is None and key[:2] in let_go:
                self._decide_deferred(deferred)

    async def release(self, starts: Sequence[Released]) -> None:
        """Take starts back whose bodies have not begun, and claims that are not decided yet."""
        released = {(one.task_id, one.attempt, start_of(one)) for one in starts}
        for key, deferred in list(self._deferred.items()):
            start = deferred.claim.start
            if (start.task_id, start.attempt, start_of(start)) in released:
                del self._deferred[key]
        if self._deciding:
            await asyncio.wait(self._deciding)  # one of these may be granted just now
        self.hand_back(await self._store.release(starts))

    async def _unheard_of(self, claims: Iterable[Claim]) -> dict[_Key, Claim]:
        """Return the claims to tasks that another worker may begin without asking, if it has not done so."""
        doubtful = {_key_of(claim): claim for claim in claims if self._is_doubtful(claim)}
        unheard_of = await self._store.unheard_of([claim.start for claim in doubtful.values()])
        return {key: claim for key, claim in doubtful.items() if key[:2] in unheard_of}

    def _is_doubtful(self, claim: Claim) -> bool:
        return claim.may_begin_elsewhere and (claim.start.task_id, claim.start.attempt) not in self._handed_back

    async def _decide_now(self, claims: Sequence[Claim]) -> None:
        if not claims:
            return
        verdicts = await self._store.claim_all(claims, self._max_deliveries, take_over=False)
        await self._losses.note_starts([claim.start for claim in claims])
        for claim, verdict in zip(claims, verdicts, strict=True):
            if verdict.decision is Decision.STARTED_ELSEWHERE:
                await self._decide_alone(claim)
            else:
                self._answer(claim, verdict)

    async def _decide_alone(self, claim: Claim) -> None:
        # Asked anew: a claim before this one may have taken the task over just now.
        verdict = await self._claim(claim, take_over=False)
        owner = verdict.worker
        if verdict.decision is not Decision.STARTED_ELSEWHERE:
            self._answer(claim, verdict)
        elif owner is None or owner == claim.start.worker or self._losses.is_dead(owner):
            await self._decide_against(owner, claim, take_over=True)
        else:
            self._defer(claim, owner, _NEWS_SECONDS)

    def note_death(self, worker: str) -> None:
        """Decide at once what waited for news of this worker, and forget what it has claimed itself."""
        for key, deferred in list(self._deferred.items()):
            if deferred.claim.start.worker == worker:
                del self._deferred[key]
            elif deferred.owner == worker:
                self._decide_deferred(deferred)

    def _defer(self, claim: Claim, owner: str | None, seconds: float) -> None:
        """Decide a claim later; `owner` is who has started the task, None if nobody is known to have."""
        deferred = self._deferred[_key_of(claim)] = _Deferred(claim, owner)
        asyncio.get_running_loop().call_later(seconds, self._wait_for_echo, deferred)

    def _wait_for_echo(self, deferred: _Deferred) -> None:
        """Decide a claim as soon as everything is read here that others have told until now.

        Else the news that it waits for may stand in the queue, or have gone to another recorder since: this one stood
        still, or its node is cut off. Whoever hears no echo decides nothing, and the worker asks again.
        """
        if self._deferred.get(_key_of(deferred.claim)) is deferred:
            deferred.due_at = time.monotonic()
            if not self._echo_is_on_its_way:
                self._echo_is_on_its_way = True
                self._send_echo()

    def note_echo(self, sent_at: float) -> None:
        """Hear what this recorder has sent to itself at `sent_at`, by time.monotonic."""
        for key, deferred in list(self._deferred.items()):
            if deferred.due_at is not None and deferred.due_at < sent_at - _FORGOTTEN_SECONDS:
                del self._deferred[key]
            elif deferred.due_at is not None and deferred.due_at <= sent_at:
                self._decide_deferred(deferred)
        self._echo_is_on_its_way = any(one.due_at is not None for one in self._deferred.values())
        if self._echo_is_on_its_way:
            self._send_echo()

    def _decide_deferred(self, deferred: _Deferred) -> None:
        key = _key_of(deferred.claim)
        if self._deferred.get(key) is deferred:
            del self._deferred[key]
            deciding = asyncio.get_running_loop().create_task(self._decide_at_last(deferred.claim, deferred.owner))
            self._deciding.add(deciding)
            deciding.add_done_callback(self._on_decided)

    def _on_decided(self, deciding: asyncio.Task[None]) -> None:
        self._deciding.discard(deciding)
        error = None if deciding.cancelled() else deciding.exception()
        if isinstance(error, StoreError):
            logger.error("a claim could not be decided: %s", error)
        elif error is not None:
            raise error

    async def _decide_at_last(self, claim: Claim, owner: str | None) -> None:
        take_over = claim.may_run_again or (owner is not None and self._losses.is_gone(owner))
        await self._decide_against(owner, claim, take_over=take_over)

    async def _decide_against(self, owner: str | None, claim: Claim, *, take_over: bool) -> None:
        """Decide a claim to what `owner` has started, if anybody has.

        A task that has begun too often is looked at again later while a worker that lives may yet bring its end: its
        message comes again as well if that worker has lost its connection only.
        """
        verdict = await self._claim(claim, take_over=take_over)
        holder = self._holder(claim, owner) if verdict.decision is Decision.BEGUN_TOO_OFTEN else None
        if holder is not None:
            verdict = replace(verdict, decision=Decision.STARTED_ELSEWHERE, worker=holder)
        self._answer(claim, verdict)

    def _holder(self, claim: Claim, owner: str | None) -> str | None:
        """Return a living worker, other than the one that asks, which may bring the end of a task."""
        claimant = claim.start.worker
        if owner is not None and owner != claimant and not self._losses.is_gone(owner):
            return owner
        return self._losses.holder_of(claim.start.task_id, but=claimant)

    async def _claim(self, claim: Claim, *, take_over: bool) -> Verdict:
        verdict = await self._store.claim(claim, self._max_deliveries, take_over=take_over)
        await self._losses.note_starts([claim.start])
        return verdict

    def _answer(self, claim: Claim, verdict: Verdict) -> None:
        if self._names.is_reply_key(claim.reply_to):
            sent = self._publishing.publish(self._names.events_exchange, claim.reply_to, encode_verdict(verdict))
            sent.add_done_callback(_note_failure)


def _key_of(claim: Claim) -> _Key:
    return claim.start.task_id, claim.start.attempt, claim.reply_to


def _note_failure(sent: asyncio.Future[None]) -> None:
    if sent.exception() is not None:
        logger.debug("an answer did not arrive: %s", sent.exception())
