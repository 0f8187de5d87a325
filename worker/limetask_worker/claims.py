"""Asks the recorder whether a task may run that was delivered before, or that was perhaps sent twice.

Only the recorder sees all starts and ends, in one order. Should two workers hold the same early-ack task, the one whose
start comes first there runs it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from datetime import datetime

from limetask.amqp import Connection, Delivery, ReplyQueue
from limetask.errors import MessageRefusedError
from limetask.message import Claim, Started, Verdict
from limetask.records import decode_verdict, encode_claim
from limetask.topology import Names

logger = logging.getLogger(__name__)

# An answer may be lost with a connection, so it is asked for again; asking twice changes nothing.
_ASK_AGAIN_SECONDS = 5.0
_QUEUE_LENGTH = 10_000
# Without any answer the connection is renewed after this time, and then after twice the time.
_FIRST_PAUSE_SECONDS = 20.0
_LAST_PAUSE_SECONDS = 600.0

_Question = tuple[str, int, datetime]


class Claims:
    """Puts questions on the results queue, and hears the answers on a reply queue of the publishing connection."""

    def __init__(self, publishing: Connection, names: Names) -> None:
        """Make it before the connection is opened."""
        self._publishing = publishing
        self._names = names
        self._reply_key = names.reply_key(secrets.token_hex(8))
        self._asked: dict[_Question, asyncio.Future[Verdict]] = {}
        self._pause = _FIRST_PAUSE_SECONDS
        self._renewal_at: float | None = None
        self._said_at = -math.inf
        publishing.set_reply_queue(ReplyQueue(names.events_exchange, self._reply_key, _QUEUE_LENGTH, self._on_delivery))

    async def verdict(self, start: Started, *, may_run_again: bool, may_begin_elsewhere: bool) -> Verdict:
        """Return the recorder's word, however long it takes: without a recorder the task waits.

        What the arguments mean is told by `Claim`.
        """
        envelope = encode_claim(Claim(start, may_run_again, self._reply_key, may_begin_elsewhere))
        answer: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        question = start.task_id, start.attempt, start.started_at
        self._asked[question] = answer
        try:
            while not answer.done():
                await self._publishing.publish_until_confirmed("", self._names.results_queue, envelope)
                await asyncio.wait([answer], timeout=_ASK_AGAIN_SECONDS)
                if not answer.done():
                    self._say_that_they_wait(start)
                    self._renew_now_and_then()
            return answer.result()
        finally:
            self._asked.pop(question, None)

    def _say_that_they_wait(self, start: Started) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._said_at >= _ASK_AGAIN_SECONDS:
            self._said_at = now
            text = "no recorder has answered yet whether tasks may run: %d wait, one of them is %s"
            logger.warning(text, len(self._asked), start.task_id)

    def _renew_now_and_then(self) -> None:
        """Have another reply queue: a cluster may have deleted ours when it took this node for dead.

        More and more seldom, since there may just be no recorder.
        """
        now = asyncio.get_running_loop().time()
        if self._renewal_at is None:
            self._renewal_at = now + self._pause
        elif now >= self._renewal_at:
            self._pause = min(2 * self._pause, _LAST_PAUSE_SECONDS)
            self._renewal_at = now + self._pause
            self._publishing.renew("no recorder has answered for long: the reply queue may be gone")

    def _note_answer(self) -> None:
        self._pause = _FIRST_PAUSE_SECONDS
        self._renewal_at = None

    def _on_delivery(self, delivery: Delivery) -> None:
        try:
            verdict = decode_verdict(delivery.envelope.body)
        except MessageRefusedError as exc:
            logger.warning("ignoring a reply: %s", exc)
            return
        self._note_answer()
        answer = self._asked.get((verdict.task_id, verdict.attempt, verdict.started_at))
        # What was asked twice is answered twice. Whoever has let the task go has taken its start back after asking.
        if answer is not None and not answer.done():
            answer.set_result(verdict)
