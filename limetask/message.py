"""What goes over the wire, as values: no bytes here, and no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from limetask.status import ErrorInfo, Rank, Status
from limetask.value import value

WORKER_LOST = "WorkerLost"
"""The error type of a task whose worker process died under it."""

END_LOST = "EndLost"
"""The error type of a task that has ended, as its worker says, and how is not recorded."""

UNKNOWN_TASK, UNREADABLE = "UnknownTaskError", "MessageRefusedError"
"""The error types of a task whose message was refused before anybody had asked the recorder."""

UNKNOWN_APPLICATION, BEGUN_TOO_OFTEN = "UnknownApplicationError", "BegunTooOftenError"
START_REFUSED = "StartRefusedError"
"""The error types of a task that was set aside after its start was recorded."""

_REFUSED = (UNKNOWN_TASK, UNREADABLE)
_PRESUMED = (UNKNOWN_APPLICATION, BEGUN_TOO_OFTEN, START_REFUSED, WORKER_LOST, END_LOST)


class MessageKind(StrEnum):
    """What a message is, as its property `type` says. A task has none."""

    STARTED = "started"
    COMPLETION = "completion"
    REFUSED = "refused"
    CLAIM = "claim"
    RELEASED = "released"
    RETURNED = "returned"
    ALIVE = "alive"
    ECHO = "echo"
    WORKER_LOST = "worker-lost"
    HANDLERS = "handlers"
    HANDLER_GONE = "handler-gone"
    VERDICT = "verdict"
    EVENT = "event"
    DEAD_LETTER = "dead-letter"


RECORD_KINDS = frozenset(MessageKind) - {MessageKind.VERDICT, MessageKind.EVENT, MessageKind.DEAD_LETTER}
"""What the recorder reads from the results queue."""


class UnreadableHeaders(dict[str, Any]):
    """Headers of which something had to be left out: the rest must not be taken for the whole message.

    `reason` says which and why.
    """

    def __init__(self, headers: Mapping[str, Any], reason: str) -> None:
        super().__init__(headers)
        self.reason = reason


@value
class Envelope:
    """An AMQP message: its body and the properties that limetask uses.

    A property that is no UTF-8 arrives as bytes, whatever its type here says: anybody may have sent it.
    """

    body: bytes
    content_type: str | None
    message_id: str | None = None
    kind: str | None = None
    reply_to: str | None = None
    headers: Mapping[str, Any] | None = None


@value
class TaskIdentity:
    """Which task a message is about: known from its headers, even if the body cannot be read."""

    task_id: str
    task_name: str
    app: str
    attempt: int
    reply_to: str | None


@value
class TaskMessage:
    """One attempt at one task, as it waits in a queue."""

    identity: TaskIdentity
    args: Sequence[Any]
    kwargs: Mapping[str, Any]


@value
class Started:
    """A worker has taken a task and is about to run it."""

    task_id: str
    task_name: str
    app: str
    attempt: int
    worker: str
    acks_late: bool
    sent_at: datetime
    started_at: datetime


@value
class Claim:
    """A start that needs the recorder's word first: the message has been delivered before, or sent twice.

    `may_run_again` is true for a late-ack task whose former worker has lost it. `may_begin_elsewhere` is true if
    another worker may have got the message for the first time just now, and begin the task without asking: when a
    partition heals, a cluster can deliver a message as new to one worker and as redelivered to another one at once.
    """

    start: Started
    may_run_again: bool
    reply_to: str
    may_begin_elsewhere: bool = False


class Decision(StrEnum):
    """The recorder's word: it alone sees all starts and ends, in one order."""

    RUN = "run"
    STARTED_ELSEWHERE = "started elsewhere"
    ENDED = "ended"
    BEGUN_TOO_OFTEN = "begun too often"
    UNEXPECTED = "unexpected attempt"
    REFUSED = "refused"
    """Its start cannot be recorded, so nobody could tell whether it has run before."""


@value
class Verdict:
    """The answer to a claim.

    `started_at` is that of the claim, which tells it from others of the same worker. `begun` is how often the body of
    this attempt has begun, this time included. `worker` is who started it, if it was somebody else.
    """

    task_id: str
    attempt: int
    started_at: datetime
    decision: Decision
    begun: int
    worker: str | None = None


@value
class Released:
    """A worker takes back its start of a task whose body it has not begun: whoever gets the message may run it."""

    task_id: str
    attempt: int
    worker: str
    started_at: datetime


@value
class Returned:
    """A worker returns messages to their queue that it held and whose tasks it has not started: ids and attempts."""

    tasks: Sequence[tuple[str, int]]


@value
class Completion:
    """A task has ended: at once the event that others subscribe to and the record of its status."""

    id: str
    task_id: str
    task_name: str
    app: str
    status: Status
    result: Any
    error: ErrorInfo | None
    attempt: int
    worker: str | None
    sent_at: datetime
    started_at: datetime | None
    finished_at: datetime

    @property
    def routing_key(self) -> str:
        """Under which the event is published."""
        return completion_key(self.task_name, self.status)

    @property
    def rank(self) -> Rank:
        """What it may replace in the store: an end that no body has come to gives way to one that has."""
        if self.error is None:
            return Rank.ENDED
        error = self.error.type
        if error in _REFUSED:
            return Rank.REFUSED if self.started_at is None else Rank.PRESUMED_LOST
        return Rank.PRESUMED_LOST if error in _PRESUMED else Rank.ENDED


@value
class Refused:
    """A worker has refused a task's message, and `end` is how the task ends by that, if nothing better is known of it.

    `was_delivered_before` is whether a worker had the message before, as the broker says.
    """

    end: Completion
    was_delivered_before: bool


@value
class Alive:
    """A sign of life of task processes, from their supervisor or from one of them: a dead host gives none.

    `workers` has for each of them the ids of the tasks that it had in hand at `seen_at`: from before their start was
    recorded until their end was confirmed. None if that is not told.
    """

    seen_at: datetime
    workers: Mapping[str, Sequence[str] | None]


@value
class Echo:
    """A recorder's message to itself: it proves that the recorder hears what comes through the results queue.

    `recorder` names the process, and `sent_at` is when it was sent, in seconds of that process's monotonic clock.
    `store_id` is the mark of the store that it writes to, and `store` the URL: one that is not active is heard by the
    one that is.
    """

    recorder: str
    sent_at: float
    store_id: str | None = None
    store: str = ""


@value
class Begun:
    """A task whose body had begun in a process that ended. `exceeded` is its time limit in seconds, if it was that."""

    task_id: str
    attempt: int
    exceeded: float | None = None


@value
class WorkerLost:
    """A worker process has ended: it will not report the end of what it had in hand.

    `begun` are the tasks whose bodies had begun; it ran nothing else. None if that is not known.
    """

    worker: str
    reason: str
    lost_at: datetime
    begun: Sequence[Begun] | None


@value
class HandlerBindings:
    """What the queue of a shared event handler is bound to, by the code that a worker has just loaded."""

    name: str
    bindings: Sequence[str]
    declared_at: datetime


@value
class HandlerGone:
    """The queue of a shared event handler has been deleted, since no code declares the handler any more."""

    name: str
    gone_at: datetime


def completion_key(task_name: str, status: Status) -> str:
    """Return the routing key of the event for a task that ended with `status`."""
    return f"core.task.{task_name}.{status.value.lower()}.v1"
