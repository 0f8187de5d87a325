"""Many tasks on their way to the broker at a time: what makes `send_tasks` fast."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from limetask.errors import BrokerError, ConnectionLostError, PartlySentError, SendOutcomeUnknownError
from limetask.sending import NOT_IN_TIME, PreparedTask, Publisher
from limetask.settings import Settings
from limetask.status import TaskStatus
from limetask.topology import Names

WINDOW = 1000
"""How many publishes may await their confirms at a time: the broker has always some left to work on."""

# Large tasks are copied on their way to the socket: not all of them at a time.
_WINDOW_BYTES = 16 * 1024 * 1024


class Bulk:
    """The tasks of one call of `send_tasks`, and what has become of each.

    `errors` has for each task why the broker has not confirmed it, None if it has; `confirmed` counts those.
    """

    def __init__(self, tasks: Sequence[PreparedTask]) -> None:
        self.tasks = tasks
        self.errors: list[BaseException | None] = [BrokerError("not tried")] * len(tasks)
        self.confirmed = 0
        self.is_refused = False

    def unconfirmed(self) -> list[int]:
        """Return the numbers of the tasks that the broker has not confirmed."""
        return [number for number, error in enumerate(self.errors) if error is not None]

    def may_be_there(self, number: int) -> bool:
        """Return True for a task that was published, and may be in its queue."""
        return isinstance(self.errors[number], SendOutcomeUnknownError)

    def note_answer(self, number: int, error: BaseException | None) -> None:
        """Keep what came of publishing one task."""
        if error is None:
            self.errors[number] = None
            self.confirmed += 1
        elif isinstance(error, ConnectionLostError):
            self.errors[number] = self.tasks[number].outcome_unknown(str(error))
        else:
            self.errors[number] = error
            self.is_refused = True

    def note_unreachable(self, error: BrokerError) -> None:
        """Keep why the broker cannot be used any more."""
        for number in self.unconfirmed():
            is_unknown = self.may_be_there(number)
            self.errors[number] = self.tasks[number].outcome_unknown(str(error)) if is_unknown else error

    def statuses(self) -> list[TaskStatus]:
        """Return the statuses of all tasks; raises PartlySentError unless the broker has confirmed all."""
        outcomes = [(task.status, error) for task, error in zip(self.tasks, self.errors, strict=True)]
        sent = [status for status, error in outcomes if error is None]
        unconfirmed = [status for status, error in outcomes if error is not None]
        for _, error in outcomes:
            if error is not None:
                raise PartlySentError(f"{len(sent)} of {len(outcomes)} tasks were sent: {error}", sent, unconfirmed)
        return sent


class BulkSender:
    """Publishes many tasks until the broker has confirmed all. Belongs to one asyncio loop.

    It goes on, also on a new connection, while the broker confirms anything within `Settings.send_timeout` seconds, and
    publishes nothing more after the first task that the broker refuses.
    """

    def __init__(self, settings: Settings, open_publisher: Callable[[], Publisher]) -> None:
        self._timeout = settings.send_timeout
        self._exchange = Names(settings.namespace).tasks_exchange
        self._open_publisher = open_publisher

    async def send(self, bulk: Bulk) -> None:
        """Publish the tasks; the bulk tells what has become of them."""
        connection = self._open_publisher()
        progress = _Progress(self._timeout)
        while bulk.unconfirmed() and not bulk.is_refused and progress.seconds_left > 0:
            try:
                await connection.ready(progress.seconds_left)
            except BrokerError as exc:
                bulk.note_unreachable(exc)
                return
            await _Flight(bulk, connection, self._exchange, progress).land()


class _Progress:
    """How long nothing has been confirmed."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._clock = asyncio.get_running_loop().time
        self.note()

    def note(self) -> None:
        self._last = self._clock()

    @property
    def seconds_left(self) -> float:
        return max(0.0, self._last + self._timeout - self._clock())


class _Flight:
    """All that is published on one connection, until everything is answered or the connection is lost.

    What is lost is flagged as repeated when it is published again: it may be in its queue already.
    """

    def __init__(self, bulk: Bulk, connection: Publisher, exchange: str, progress: _Progress) -> None:
        self._bulk = bulk
        self._connection = connection
        self._exchange = exchange
        self._progress = progress
        self._waiting = iter(bulk.unconfirmed())
        self._unanswered: dict[int, asyncio.Future[None]] = {}
        self._unanswered_bytes = 0
        self._has_failed = False
        self._landed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def land(self) -> None:
        """Publish, and return when everything is answered, or nothing has been for too long."""
        try:
            self._fill_window()
            while not self._landed.done() and self._progress.seconds_left > 0:
                await asyncio.wait([self._landed], timeout=self._progress.seconds_left)
        finally:
            self._abandon()

    def _fill_window(self) -> None:
        while not self._has_failed and len(self._unanswered) < WINDOW and self._unanswered_bytes < _WINDOW_BYTES:
            number = next(self._waiting, None)
            if number is None:
                break
            self._publish(number)
        if not self._unanswered and not self._landed.done():
            self._landed.set_result(None)

    def _publish(self, number: int) -> None:
        task = self._bulk.tasks[number]
        envelope = task.repeated if self._bulk.may_be_there(number) else task.envelope
        answer = asyncio.ensure_future(self._connection.publish(self._exchange, task.queue, envelope))
        self._unanswered[number] = answer
        self._unanswered_bytes += len(envelope.body)
        answer.add_done_callback(partial(self._on_answer, number))

    def _on_answer(self, number: int, answer: asyncio.Future[None]) -> None:
        error = None if answer.cancelled() else answer.exception()
        if self._unanswered.pop(number, None) is None:
            return  # nobody has waited for it any longer
        self._unanswered_bytes -= len(self._bulk.tasks[number].envelope.body)
        self._bulk.note_answer(number, error)
        if error is None:
            self._progress.note()
        else:
            self._has_failed = True
        self._fill_window()

    def _abandon(self) -> None:
        unanswered, self._unanswered = self._unanswered, {}
        for number, answer in unanswered.items():
            self._bulk.errors[number] = self._bulk.tasks[number].outcome_unknown(NOT_IN_TIME)
            answer.cancel()
