"""`send_task`, `send_tasks`, `get_status`, and the one client of this process behind them."""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import uuid
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from limetask import clock, ids
from limetask.answers import Answer
from limetask.application import AnyApplication, identifier_of
from limetask.bulk import Bulk, BulkSender
from limetask.ends import Ends
from limetask.errors import BrokerError, ConfigurationError, ConnectionLostError, UnusableHereError, WaitTimeoutError
from limetask.loop_thread import LoopThread
from limetask.once import Once
from limetask.reading import (
    FIRST_POLL_SECONDS,
    LAST_POLL_SECONDS,
    StatusLookup,
    checked_statuses,
    is_just_sent,
    wait_all_timeout,
    wait_timeout,
)
from limetask.registry import TaskDeclaration
from limetask.sending import NOT_IN_TIME, PreparedTask, Preparer, Sender
from limetask.sending import TaskCall as TaskCall  # for all who import it from here
from limetask.settings import Settings, current_settings
from limetask.status import TaskStatus, seconds
from limetask.threads import check_usable
from limetask.topology import Names

if TYPE_CHECKING:
    from limetask.amqp import Connection
    from limetask.listener import Listener

T = TypeVar("T")

# The loop's thread keeps the deadlines; a caller that waits this much longer finds the thread itself stuck.
_SPARE_SECONDS = 1.0
_CLOSE_SECONDS = 5.0


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


def wait_all(statuses: Iterable[TaskStatus], timeout: float) -> list[TaskStatus]:
    """Wait until all these tasks have ended, `timeout` seconds at most for all together.

    Returns their last statuses in the order in which they were given, of failed tasks as well. Each task that is left
    when the time is over is looked at once more. Safe in any thread and after a fork.

    Raises WaitTimeoutError (a TimeoutError), whose `statuses` are the newest known ones of all tasks, if some have not
    ended in time; NotFoundError if one has expired, StoreError if the store could not be read until the end, and
    UsageError for what is no status or no number of seconds.
    """
    return default_client().wait_all(checked_statuses(statuses), seconds(timeout))


def get_status(task_id: str | uuid.UUID, app: AnyApplication) -> TaskStatus:
    """Return the status of a task of this application; `app` is its name or an object with its `identifier`.

    `task_id` is a UUID, as text or as `uuid.UUID`.
    The store is some milliseconds behind: when `wait` has returned an end in one process, another may still read
    STARTED for a moment.

    Raises NotFoundError for an id that is malformed, unknown, expired or another application's, and StoreError if
    the status store cannot be read.
    """
    return default_client().status_of_any(task_id, identifier_of(app))


def publish_event(app: AnyApplication, routing_key: str, body: Any = None) -> str:
    """Publish an event of your own, on the exchange of the tasks' completions, and return its id.

    `routing_key` is words joined by dots, such as "shop.order.paid.v1", and does not begin with "core.task".
    `body` is anything that JSON can express. Returns when the broker has confirmed it; that nobody has subscribed to it
    is no error. In a task's body the event carries the task's id as its cause. Safe in any thread and after a fork.

    Raises EventError for a key or a body that cannot be, MessageTooLargeError if the broker does not take as much,
    ApplicationError, BrokerError if the broker cannot be used within `Settings.send_timeout` seconds, and
    SendOutcomeUnknownError if it was reached and did not confirm in time: subscribers may have got the event or not.
    """
    return default_client().publish_event(app, routing_key, body)


class Client:
    """Everything that one process needs to send tasks and to hear of them.

    Its loop runs in a thread of its own, started at first use. Thread-safe, and safe in signal handlers; after a fork,
    `default_client` makes a new one.
    """

    def __init__(self, settings: Settings) -> None:
        ids.begin_in_this_process()
        self.settings = settings
        self._reply_key = Names(settings.namespace).reply_key(secrets.token_hex(8))
        self._preparer = Preparer(settings, self._reply_key, STATUS_READER)
        self._sender = Sender(settings, self._open_publisher)
        self._bulk_sender = BulkSender(settings, self._open_publisher)
        self._tasks_exchange = Names(settings.namespace).tasks_exchange
        self._ends = Ends()
        self._lookup = StatusLookup(settings, self._ends.end_of, STATUS_READER)
        self._thread = Once(LoopThread, LoopThread.stop)
        # Both are opened in the loop's thread, which imports what they need as well.
        self._publisher: Connection | None = None
        self._listener: Listener | None = None
        self._listener_error: ConfigurationError | None = None

    def send(self, call: TaskCall) -> TaskStatus:
        """Send one task; see `send_task`."""
        prepared = self._preparer.task(call)
        deadline = clock.now() + self.settings.send_timeout
        error = self._send_at_once(prepared)
        if error is not None:
            self._send_patiently(prepared, deadline, error)
        return prepared.status

    def send_many(self, calls: Iterable[TaskCall]) -> list[TaskStatus]:
        """Send many tasks; see `send_tasks`."""
        bulk = Bulk(self._preparer.tasks(calls))
        if bulk.tasks:
            self._send_bulk(bulk)
        return bulk.statuses()

    def publish_event(self, app: AnyApplication, routing_key: str, body: Any) -> str:
        """Publish a user's own event; see `publish_event`."""
        event = self._preparer.event(app, routing_key, body)
        self._run(lambda: self._sender.publish_event(event), event.outcome_unknown)
        return event.id

    def status(self, task_id: str, app: str) -> TaskStatus:
        """Return a task's status by its canonical id; see `get_status`."""
        return self._lookup.status(task_id, app)

    def status_of_any(self, task_id: str | uuid.UUID, app: str) -> TaskStatus:
        """Return a task's status; see `get_status`."""
        return self._lookup.status_of_any(task_id, app)

    def wait(self, status: TaskStatus, timeout: float) -> TaskStatus:
        """Return a task's last status; see `TaskStatus.wait`.

        The event of its end arrives here by itself if this process has sent the task. The store is asked as well, at
        once unless the task was just sent, and then at growing intervals, for all the other cases.
        """
        deadline = clock.now() + timeout
        pause = FIRST_POLL_SECONDS
        with self._ends.expected(status) as end:
            if is_just_sent(status):
                self._listen()
                end.wait(min(pause, max(0.0, timeout)))
            while not end.wait(0):
                current, store_error = self._lookup.look(status)
                if current.is_completed():
                    return current
                remaining = deadline - clock.now()
                if remaining <= 0:
                    raise store_error or wait_timeout(current, timeout)
                self._listen()
                end.wait(min(pause, remaining))
                pause = min(pause * 2, LAST_POLL_SECONDS)
            return self._lookup.bound(end.value)

    def wait_all(self, statuses: Sequence[TaskStatus], timeout: float) -> list[TaskStatus]:
        """Return the last statuses of all these tasks; see `wait_all`.

        One after the other: the ends that come meanwhile are kept.
        """
        deadline = clock.now() + timeout
        last = [self._last_status(status, deadline) for status in statuses]
        if not all(status.is_completed() for status in last):
            raise wait_all_timeout(last, timeout)
        return last

    def close(self) -> None:
        """Close connections and thread. May be called twice."""
        thread = self._thread.take()
        if thread is not None:
            thread.start(self._close_connections()).wait(_CLOSE_SECONDS)
            thread.stop()
        self._lookup.close()

    def _last_status(self, status: TaskStatus, deadline: float) -> TaskStatus:
        if status.is_completed():
            return status
        try:
            return self.wait(status, max(0.0, deadline - clock.now()))
        except WaitTimeoutError as exc:
            return exc.statuses[0]

    def _listen(self) -> None:
        """Have ends arrive by themselves, if that can be had: they are only ever hints."""
        if self._listener_error is not None:
            raise self._listener_error
        if self._listener is None:
            with contextlib.suppress(UnusableHereError):
                self._thread.get().call_soon(self._open_listener)

    def _send_at_once(self, prepared: PreparedTask) -> BaseException | None:
        """Publish on the connection as it is, without a coroutine; return the error, None when it is confirmed."""
        if self._publisher is None:
            return _NotConnectedError()
        answer: Answer[BaseException | None] = Answer()
        self._thread.get().call_soon(self._publish_at_once, prepared, answer.give)
        if not answer.wait(self.settings.send_timeout):
            raise prepared.outcome_unknown(NOT_IN_TIME)
        return answer.value

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
        self._run(
            lambda: self._sender.send(prepared, deadline=deadline, may_be_there=may_be_there), prepared.outcome_unknown
        )

    def _send_bulk(self, bulk: Bulk) -> None:
        thread = self._thread.get()
        sending = thread.start(self._bulk_sender.send(bulk))
        confirmed = -1
        while bulk.confirmed > confirmed:
            confirmed = bulk.confirmed
            if sending.wait(self.settings.send_timeout + _SPARE_SECONDS):
                sending.result()
                return
        sending.cancel()

    def _run(self, work: Callable[[], Coroutine[Any, Any, T]], silent: Callable[[str], Exception]) -> T:
        """Run a coroutine in the loop's thread, which keeps its deadline; raises `silent(reason)` if that is stuck."""
        call = self._thread.get().start(work())
        if not call.wait(self.settings.send_timeout + _SPARE_SECONDS):
            raise silent("limetask's own thread did not answer in time")
        return call.result()

    def _open_publisher(self) -> Connection:
        from limetask.amqp import Connection  # pika takes 60 ms to import, and a process may never send

        if self._publisher is None:
            self._publisher = Connection(self.settings, "producer")
        return self._publisher

    def _open_listener(self) -> None:
        from limetask.listener import Listener

        if self._listener is not None:
            return
        try:
            self._listener = Listener(self.settings, self._reply_key, self._ends)
        except ConfigurationError as exc:
            self._listener_error = exc
        else:
            self._listener.start()

    async def _close_connections(self) -> None:
        connections = [one for one in (self._publisher, self._listener) if one is not None]
        self._publisher = self._listener = None
        for connection in connections:
            await connection.close()


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

# By process and settings. Clients of a parent process stay here or in `_abandoned`: they are never closed, since their
# sockets are the parent's, and never collected, since a collected loop would take its descriptors out of the parent's
# epoll set. The process is compared at each use, since not all that fork run Python's hooks (uWSGI does not).
_clients: dict[tuple[int, int], Client] = {}
_abandoned: list[Client] = []


def default_client() -> Client:
    """Return the client of this process for the current settings.

    Raises UnusableHereError where its calls could never return.
    """
    check_usable()
    settings = current_settings()
    key = (os.getpid(), id(settings))
    client = _clients.get(key)
    if client is None:
        client = _clients.setdefault(key, Client(settings))
        _close_clients(but=client)
    return client


def close_default_client() -> None:
    """Close the connections of this process; the next call opens new ones. Done by itself at exit."""
    _close_clients()


def _close_clients(but: Client | None = None) -> None:
    for key, client in tuple(_clients.items()):
        if key[0] == os.getpid() and client is not but and _clients.pop(key, None) is not None:
            client.close()


def _abandon_clients_after_fork() -> None:
    _abandoned.extend(_clients.values())
    _clients.clear()


atexit.register(close_default_client)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_clients_after_fork)
