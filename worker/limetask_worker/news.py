"""What the supervisor tells the recorder, through the results queue: who lives, and who has died."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from limetask.amqp import Connection
from limetask.errors import MessageRefusedError, TooLargeForBrokerError
from limetask.message import Alive, WorkerLost
from limetask.records import completion_event, decode_completion, encode_alive, encode_completion, encode_worker_lost
from limetask.topology import Names
from limetask_worker.signs_of_life import give_signs_of_life
from limetask_worker.too_large import shorter_end

logger = logging.getLogger(__name__)

_TELL_SECONDS = 10.0
_TELL_IN_A_HURRY_SECONDS = 2.0


class News:
    """Has a connection of its own, opened with the first news."""

    def __init__(self, connection: Connection, names: Names) -> None:
        self._connection = connection
        self._names = names
        self._telling: set[asyncio.Future[None]] = set()

    async def give_signs_of_life(self, worker_timeout: float, sign: Callable[[], Alive]) -> None:
        """Give signs of life, six in `worker_timeout` seconds, until cancelled."""
        queue = self._names.results_queue
        await give_signs_of_life(
            self._connection, worker_timeout, lambda: self._connection.publish("", queue, encode_alive(sign()))
        )

    def tell_of_death(self, lost: WorkerLost, ends: Sequence[bytes]) -> None:
        """Report the ends that a process left, by their events, and its own, however long the broker takes."""
        telling = asyncio.ensure_future(self._publish(lost, ends))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def finish(self, *, in_a_hurry: bool) -> None:
        """Return when all deaths are told, or after a while, in a hurry a short one, with what is not told logged."""
        if self._telling:
            seconds = _TELL_IN_A_HURRY_SECONDS if in_a_hurry else _TELL_SECONDS
            _, untold = await asyncio.wait(self._telling, timeout=seconds)
            if untold:
                logger.critical("the broker could not be told of %d dead task processes", len(untold))

    async def close(self) -> None:
        await self._connection.close()

    async def _publish(self, lost: WorkerLost, ends: Sequence[bytes]) -> None:
        await asyncio.gather(*map(self._report, ends))  # first, so that none of them counts as lost
        await self._connection.publish_until_confirmed("", self._names.results_queue, encode_worker_lost(lost))

    async def _report(self, event: bytes) -> None:
        exchange = self._names.completions_exchange
        try:
            end = decode_completion(event)
        except MessageRefusedError as exc:
            logger.error("an end that a dead process has left cannot be read, its task counts as lost: %s", exc)
            return
        try:
            await self._connection.publish_if_it_fits(exchange, end.routing_key, completion_event(event))
        except TooLargeForBrokerError as exc:
            logger.error("the end of task %s is told as a failure: %s", end.task_id, exc)
            shorter = shorter_end(end, exc)
            await self._connection.publish_until_confirmed(exchange, shorter.routing_key, encode_completion(shorter))
