"""`send_task`, `send_tasks`, `get_status`, and the one client of this process behind them."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import secrets
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from limetask.application import AnyApplication, identifier_of
from limetask.bulk import Bulk, BulkSender
from limetask.ends import Ends
from limetask.errors import BrokerError, ConnectionLostError
from limetask.reading import FIRST_POLL_SECONDS, LAST_POLL_SECONDS, StatusLookup, wait_timeout
from limetask.registry import TaskDeclaration
from limetask.sending import NOT_IN_TIME, PreparedTask, Preparer, Sender
from limetask.sending import TaskCall as TaskCall  # for all who import it from here
from limetask.settings import Settings, current_settings
from limetask.status import TaskStatus
from limetask.topology import Names

if TYPE_CHECKING:
    from limetask.amqp import Connection
    from limetask.listener import Listener

T = TypeVar("T")

# The loop's thread keeps the deadlines; a caller that waits this much longer finds the thread itself stuck.
_SPARE_SECONDS = 1.0


def send_task(task: str | TaskDeclaration, app: AnyApplication, /, *args: Any, **kwargs: Any) -> TaskStatus:
    """Send a task to be run by a worker, and return its status: PENDING, with its id.

    `task` is a task's dotted name or the declared task itself; `app` an application's name or an object with its
    `identifier`. Returns when the broker has confirmed that it keeps the message on disk. Safe in any thread and
    after a fork.

    Raises TaskNameError, ApplicationError, ArgumentsError or MessageTooLargeError for what cannot be sent,
    BrokerError if the broker cannot be used within `Settings.send_timeout` seconds, and SendOutcomeUnknownError if
    it was reached and did not confirm in time.
    """
    return default_client().send(TaskCall(task, app, args, kwargs))


def send_tasks(calls: Iterable[TaskCall]) -> list[TaskStatus]:
    """Send many tasks, far faster than one by one, and return their statuses in the same order.

    All calls are checked before the first is sent. Raises what `send_task` raises for a call that cannot be sent,
    and PartlySentError if the broker confirmed only some within `Settings.send_timeout` seconds without progress.
    """
    return default_client().send_many(calls)


def get_status(task_id: str, app: AnyApplication) -> TaskStatus:
    """Return the status of a task of this application; `app` is its name or an object with its `identifier`.

    The store is some milliseconds behind: when `wait` has returned an end in one process, another may still read
    STARTED for a moment.

    Raises NotFoundError for an id that is malformed, unknown, expired or another application's, and StoreError if
    the status store cannot be read.
    """
    return default_client().status(task_id, identifier_of(app))


def publish_event(app: AnyApplication, routing_key: str, body: Any = None) -> str:
    """Publish an event of your own, on the exchange of the tasks' completions, and return its id.

    `routing_key` is words joined by dots, such as "shop.order.paid.v1", and does not begin with "core.task".
    `body` is anything that JSON can express. Returns when the broker has confirmed it; that nobody has subscribed to it
    is no error. In a task's body the event carries the task's id as its cause. Safe in any thread and after a fork.

    Raises EventError for a key or a body that cannot be, ApplicationError, BrokerError if the broker cannot be used
    within `Settings.send_timeout` seconds, and SendOutcomeUnknownError if it was reached and did not confirm in time:
    subscribers may have got the event or not.
    """
    return default_client().publish_event(app, routing_key, body)


class Client:
    """Everything that one process needs to send tasks and to hear of them.

    Its loop runs in a thread of its own, started at first use. Thread-safe; after a fork, `default_client` makes a
    new one.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._reply_key = Names(settings.namespace).reply_key(secrets.token_hex(8))
        self._preparer = Preparer(settings, self._reply_key, STATUS_READER)
        self._sender = Sender(settings, self._open_publisher)
        self._bulk_sender = BulkSender(settings, self._open_publisher)
        self._tasks_exchange = Names(settings.namespace).tasks_exchange
        self._ends = Ends()
        self._lookup = StatusLookup(settings, self._ends.end_of, STATUS_READER)
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread
        self._publisher: Connection | None = None
        self._listener: Listener | None = None

    def send(self, call: TaskCall) -> TaskStatus:
        """Send one task; see `send_task`."""
        prepared = self._preparer.task(call)
        deadline = time.monotonic() + self.settings.send_timeout  # which is the loop's clock as well
        error = self._send_at_once(prepared)
        if error is not None:
            self._send_patiently(prepared, deadline, error)
        return prepared.status

    def send_many(self, calls: Iterable[TaskCall]) -> list[TaskStatus]:
        """Send many tasks; see `send_tasks`."""
        bulk = Bulk([self._preparer.task(call) for call in calls])
        if bulk.tasks:
            self._send_bulk(bulk)
        return bulk.statuses()

    def publish_event(self, app: AnyApplication, routing_key: str, body: Any) -> str:
        """Publish a user's own event; see `publish_event`."""
        event = self._preparer.event(app, routing_key, body)
        self._run(self._sender.publish_event(event), self.settings.send_timeout)
        return event.id

    def status(self, task_id: str, app: str) -> TaskStatus:
        """Return a task's status; see `get_status`."""
        return self._lookup.status(task_id, app)

    def wait(self, status: TaskStatus, timeout: float) -> TaskStatus:
        """Return a task's last status; see `TaskStatus.wait`.

        The event of its end arrives here by itself if this process has sent the task. The store is asked as well,
        at growing intervals, for all the other cases.
        """
        listener = self._open_listener()
        deadline = time.monotonic() + timeout
        pause = FIRST_POLL_SECONDS
        with listener.expecting(status.id) as expected:
            while True:
                remaining = deadline - time.monotonic()
                ended = expected.wait(max(0.0, min(pause, remaining)))
                if ended is not None and ended.app == status.app:
                    return self._lookup.bound(ended)
                current, store_error = self._lookup.look(status)
                if current.is_completed():
                    return current
                if remaining <= 0:
                    raise store_error or wait_timeout(current, timeout)
                pause = min(pause * 2, LAST_POLL_SECONDS)

    def close(self) -> None:
        """Close connections and thread. May be called twice."""
        with self._lock:
            loop, self._loop = self._loop, None
            connections = [one for one in (self._publisher, self._listener) if one is not None]
            self._publisher = self._listener = None
        self._lookup.close()
        if loop is not None:
            closing = asyncio.run_coroutine_threadsafe(_close_all(connections), loop)
            concurrent.futures.wait([closing], timeout=5.0)
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join(timeout=5.0)

    def _send_at_once(self, prepared: PreparedTask) -> BaseException | None:
        """Publish on the connection as it is, without a coroutine; return the error, None when it is confirmed."""
        if self._publisher is None:
            return _NotConnectedError()
        answers: SimpleQueue[BaseException | None] = SimpleQueue()
        self._open_loop().call_soon_threadsafe(self._publish_at_once, prepared, answers.put)
        try:
            return answers.get(timeout=self.settings.send_timeout)
        except Empty:
            raise prepared.outcome_unknown(NOT_IN_TIME) from None

    def _publish_at_once(self, prepared: PreparedTask, answer: Callable[[BaseException | None], None]) -> None:
        publisher = self._publisher
        if publisher is None or not publisher.is_ready:
            answer(_NotConnectedError())
            return
        try:
            confirmed = publisher.publish(self._tasks_exchange, prepared.queue, prepared.envelope)
        except Exception as exc:  # noqa: BLE001 - it is raised where the caller waits
            answer(exc)
        else:
            confirmed.add_done_callback(lambda confirmed: answer(confirmed.exception()))

    def _send_patiently(self, prepared: PreparedTask, deadline: float, error: BaseException) -> None:
        """Send what could not be sent at once; raises the error if that cannot mend itself."""
        if not isinstance(error, _NotConnectedError | ConnectionLostError):
            raise error
        may_be_there = isinstance(error, ConnectionLostError)
        sending = self._sender.send(prepared, deadline=deadline, may_be_there=may_be_there)
        self._run(sending, self.settings.send_timeout)

    def _send_bulk(self, bulk: Bulk) -> None:
        sending = asyncio.run_coroutine_threadsafe(self._bulk_sender.send(bulk), self._open_loop())
        confirmed = -1
        while not sending.done() and bulk.confirmed > confirmed:
            confirmed = bulk.confirmed
            concurrent.futures.wait([sending], self.settings.send_timeout + _SPARE_SECONDS)
        if not sending.cancel():
            sending.result()

    def _run(self, coroutine: Coroutine[Any, Any, T], timeout: float) -> T:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._open_loop())
        return future.result(timeout + _SPARE_SECONDS)

    def _open_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_run_loop, args=(self._loop,), name="limetask", daemon=True)
                self._thread.start()
            return self._loop

    def _open_publisher(self) -> Connection:
        from limetask.amqp import Connection  # pika takes 60 ms to import, and a process may never send

        if self._publisher is None:
            self._publisher = Connection(self.settings, "producer")
        return self._publisher

    def _open_listener(self) -> Listener:
        from limetask.listener import Listener

        loop = self._open_loop()
        with self._lock:
            if self._listener is None:
                self._listener = Listener(self.settings, self._reply_key, self._ends)
                asyncio.run_coroutine_threadsafe(self._listener.start(), loop)
            return self._listener


class _NotConnectedError(BrokerError):
    """Nothing was published: there is no connection now."""


class _DefaultReader:
    """How a TaskStatus finds the client of the process that it is in."""

    def read(self, task_id: str, app: str) -> TaskStatus:
        return default_client().status(task_id, app)

    def wait(self, status: TaskStatus, timeout: float) -> TaskStatus:
        return default_client().wait(status, timeout)


STATUS_READER = _DefaultReader()
"""What every TaskStatus is refreshed with."""

_client: Client | None = None
_client_lock = threading.Lock()
# Clients of a parent process. They are never closed here, since their sockets are the parent's, and never
# collected, since a collected loop would take its descriptors out of the parent's epoll set.
_abandoned: list[Client] = []


def default_client() -> Client:
    """Return the client of this process for the current settings."""
    global _client
    settings = current_settings()
    with _client_lock:
        if _client is None or _client.settings is not settings:
            if _client is not None:
                _client.close()
            _client = Client(settings)
        return _client


def close_default_client() -> None:
    """Close the connections of this process; the next call opens new ones. Done by itself at exit."""
    global _client
    with _client_lock:
        client, _client = _client, None
    if client is not None:
        client.close()


def _abandon_client_after_fork() -> None:
    global _client, _client_lock
    _client_lock = threading.Lock()
    if _client is not None:
        _abandoned.append(_client)
        _client = None


atexit.register(close_default_client)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_client_after_fork)


async def _close_all(connections: Iterable[Connection | Listener]) -> None:
    for connection in connections:
        await connection.close()


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()
