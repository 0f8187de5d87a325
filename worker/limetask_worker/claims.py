"""Asks the recorder whether a task may run that was delivered before, or that was perhaps sent twice.

Only the recorder sees all starts and ends, in one order. Should two workers hold the same early-ack task, the one whose
start comes first there runs it.
"""

from __future__ import annotations

import asyncio
import logging
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

_Question = tuple[str, int, datetime]


class Claims:
    """Puts questions on the results queue, and hears the answers on a reply queue of the publishing connection."""

    def __init__(self, publishing: Connection, names: Names) -> None:
        """Make it before the connection is opened."""
        self._publishing = publishing
        self._names = names
        self._reply_key = names.reply_key(secrets.token_hex(8))
        self._asked: dict[_Question, asyncio.Future[Verdict]] = {}
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
                    logger.warning("no recorder has answered yet whether task %s may run: it waits", start.task_id)
            return answer.result()
        finally:
            self._asked.pop(question, None)

    def _on_delivery(self, delivery: Delivery) -> None:
        try:
            verdict = decode_verdict(delivery.envelope.body)
        except MessageRefusedError as exc:
            logger.warning("ignoring a reply: %s", exc)
            return
        answer = self._asked.get((verdict.task_id, verdict.attempt, verdict.started_at))
        # What was asked twice is answered twice. Whoever has let the task go has taken its start back after asking.
        if answer is not None and not answer.done():
            answer.set_result(verdict)
