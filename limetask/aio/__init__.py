"""limetask for asyncio: the same tasks, statuses and events as `limetask` has, in coroutines, on aio-pika.

Messages, queues and errors are those of the synchronous client, and both work side by side in one process.

Each event loop has a client of its own for the current settings, opened at first use. It is not thread-safe: use a
loop's coroutines on that loop. Several loops, in turn or in threads, do not know of each other, and a forked process
makes its own connections. `await close()` before the loop ends.

`TaskStatus.refresh()` and `.wait()` stay the synchronous methods that they are, and would stop the loop until they
are done: use `await get_status(status.id, app)` and `await wait(status, timeout)` instead.
"""

from __future__ import annotations

try:
    import aio_pika as _aio_pika  # noqa: F401 - to say what is missing before anything else does
except ImportError as _missing:
    raise ImportError('limetask.aio needs aio-pika: pip install "limetask[aio]"') from _missing

import logging
import uuid
from collections.abc import Iterable
from typing import Any, Literal, overload

from limetask.aio.client import close_client, current_client, opened_client
from limetask.aio.headers import tolerate_strange_headers
from limetask.aio.subscription import EventsMissed, Subscription
from limetask.application import AnyApplication, identifier_of
from limetask.events import Event
from limetask.patterns import EventPattern
from limetask.reading import checked_statuses
from limetask.registry import TaskDeclaration
from limetask.sending import TaskCall
from limetask.status import TaskStatus, seconds

tolerate_strange_headers()
# Both report each fault several times, with tracebacks and without advice; `limetask.aio.connection` says it once.
logging.getLogger("aio_pika").setLevel(logging.CRITICAL)
logging.getLogger("aiormq").setLevel(logging.CRITICAL)

__all__ = [
    "EventsMissed",
    "Subscription",
    "TaskCall",
    "close",
    "get_status",
    "publish_event",
    "send_task",
    "send_tasks",
    "subscribe",
    "wait",
    "wait_all",
]


async def send_task(task: str | TaskDeclaration, app: AnyApplication, /, *args: Any, **kwargs: Any) -> TaskStatus:
    """Send a task to be run by a worker, and return its status: PENDING, with its id.

    `task` is a task's dotted name or the declared task itself; `app` an application's name or an object with its
    `identifier`. Returns when the broker has confirmed that it keeps the message on disk. If it is cancelled before,
    the task may have been queued or not.

    Raises TaskNameError, ApplicationError, ArgumentsError or MessageTooLargeError for what cannot be sent,
    BrokerError if the broker cannot be used within `Settings.send_timeout` seconds, and SendOutcomeUnknownError if
    it was reached and did not confirm in time.
    """
    return await (await current_client()).send(TaskCall(task, app, args, kwargs))


async def send_tasks(calls: Iterable[TaskCall]) -> list[TaskStatus]:
    """Send many tasks, far faster than one by one, and return their statuses in the same order.

    All calls are checked before the first is sent. Raises what `send_task` raises for a call that cannot be sent,
    and PartlySentError if the broker confirmed only some within `Settings.send_timeout` seconds without progress.
    """
    return await (await current_client()).send_many(calls)


async def get_status(task_id: str | uuid.UUID, app: AnyApplication) -> TaskStatus:
    """Return the status of a task of this application; `app` is its name or an object with its `identifier`.

    `task_id` is a UUID, as text or as `uuid.UUID`. The store is read in a thread of the loop's default executor. It is
    some milliseconds behind: when `wait` has returned an end in one process, another may still read STARTED for a
    moment.

    Raises NotFoundError for an id that is malformed, unknown, expired or another application's, and StoreError if
    the status store cannot be read.
    """
    return await (await current_client()).status(task_id, identifier_of(app))


async def wait(status: TaskStatus, timeout: float) -> TaskStatus:
    """Wait until a task has ended, `timeout` seconds at most, and return its last status.

    `status` may come from here or from the synchronous client. The end is known as soon as its event arrives if this
    loop has sent the task; in all other cases the store tells, which is asked at growing intervals, up to 0.5 s.

    Raises WaitTimeoutError (a TimeoutError) if the task has not ended in time, NotFoundError if it has expired,
    StoreError if the store could not be read until the end, and UsageError for a timeout that is no number.
    """
    [status], limit = checked_statuses([status]), seconds(timeout)
    return status if status.is_completed() else await (await current_client()).wait(status, limit)


async def wait_all(statuses: Iterable[TaskStatus], timeout: float) -> list[TaskStatus]:
    """Wait until all these tasks have ended, `timeout` seconds at most for all together.

    It returns and raises what `limetask.wait_all` does: the last statuses in the order in which they were given, or
    WaitTimeoutError, whose `statuses` are the newest known ones.
    """
    listed, limit = checked_statuses(statuses), seconds(timeout)
    return await (await current_client()).wait_all(listed, limit)


async def publish_event(app: AnyApplication, routing_key: str, body: Any = None) -> str:
    """Publish an event of your own, on the exchange of the tasks' completions, and return its id.

    `routing_key` is words joined by dots, such as "shop.order.paid.v1", and does not begin with "core.task".
    `body` is anything that JSON can express. Returns when the broker has confirmed it; that nobody has subscribed to it
    is no error. In a task's body the event carries the task's id as its cause.

    Raises EventError for a key or a body that cannot be, MessageTooLargeError if the broker does not take as much,
    ApplicationError, BrokerError if the broker cannot be used within `Settings.send_timeout` seconds, and
    SendOutcomeUnknownError if it was reached and did not confirm in time: subscribers may have got the event or not.
    """
    return await (await current_client()).publish_event(app, routing_key, body)


@overload
def subscribe(
    *patterns: str | EventPattern,
    app: AnyApplication | None = None,
    durable: str | None = None,
    tell_missed: Literal[False] = False,
) -> Subscription[Event]: ...


@overload
def subscribe(
    *patterns: str | EventPattern,
    app: AnyApplication | None = None,
    durable: str | None = None,
    tell_missed: Literal[True],
) -> Subscription[Event | EventsMissed]: ...


def subscribe(
    *patterns: str | EventPattern,
    app: AnyApplication | None = None,
    durable: str | None = None,
    tell_missed: bool = False,
) -> Subscription[Any]:
    """Return the events that fit any of the patterns, as they happen: `async for event in subscribe("core.task.#")`.

    A pattern is text such as "core.task.#.failure.v1", or what `on_failure` and `on_success` return. With `app`, an
    application's name or an object with its `identifier`, only that application's events come; without it, those of
    all applications. The subscription is opened at the first step, or by `async with subscribe(...) as events:`, which
    returns when it is bound: nothing that is sent afterwards is missed. Leaving either closes it. When the connection
    to the broker is lost it is made anew, for as long as it takes, and the log says so.

    Without `durable` it is live: what happens while it is not connected is missed, and so are the oldest events when
    more than 10,000 wait for their reader. A lost connection is logged and counted in `Subscription.gaps`; with
    `tell_missed=True` an `EventsMissed` comes as well, in its place among the events, for a reader who then has to look
    at the statuses anew.

    With `durable`, a name of at most 80 bytes, events wait in a queue of that name while nobody listens, up to 1 GiB of
    them. An event is acked when the next one is asked for: one whose processing was interrupted, by `break` too, comes
    again, so an event may come twice; its `id` tells. A lost connection alone brings none twice to one subscription.
    Several that use one name share its events, and so does an `@event_handler` of that name: another reader may get
    what this one was working on when its connection was lost, or for longer than the broker's consumer timeout. What
    the queue was bound to by earlier patterns stays bound, and is acked unseen. What is no event becomes a dead letter.

    Raises EventPatternError, ApplicationError, DeclarationError or ConfigurationError at once. Opening raises
    BrokerUnreachableError or another BrokerError within `Settings.send_timeout` seconds. Call it on the loop that reads
    it, with one reader at a time.
    """
    return opened_client().subscribe(patterns, app, durable, tell_missed=tell_missed)


async def close() -> None:
    """Close the connections of this loop, and its subscriptions; the next call opens new ones.

    Call it before the loop ends, in a web application's shutdown say.
    """
    await close_client()
