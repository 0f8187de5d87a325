"""`send_task`, `send_tasks`, `get_status`, and the one client of this process behind them."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import secrets
import threading
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from limetask import ids
from limetask.application import AnyApplication, identifier_of
from limetask.arguments import encode_arguments
from limetask.codec import encode_task
from limetask.context import current_task_id
from limetask.errors import (
    BrokerError,
    ConnectionLostError,
    NotFoundError,
    PartlySentError,
    SendOutcomeUnknownError,
    StoreError,
    TaskNameError,
    WaitTimeoutError,
)
from limetask.events import encode_event
from limetask.message import Envelope, TaskIdentity
from limetask.registry import TaskDeclaration, check_task_name, find_task
from limetask.settings import Settings, current_settings
from limetask.signing import Signer
from limetask.status import Status, TaskStatus
from limetask.topology import Names

if TYPE_CHECKING:
    from limetask.amqp import Connection
    from limetask.listener import Listener
    from limetask.store import Store

T = TypeVar("T")

# How many publishes of send_tasks may await their confirms at a time.
_PIPELINE = 1000
# The loop's thread keeps the deadlines; a caller that waits this much longer finds the thread itself stuck.
_SPARE_SECONDS = 1.0
_FIRST_POLL_SECONDS = 0.01
_LAST_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class TaskCall:
    """One task to be sent: which, for whom, with what. For `send_tasks`."""

    task: str | TaskDeclaration
    app: AnyApplication
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


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
    return default_client().publish_event(identifier_of(app), routing_key, body)


class Client:
    """Everything that one process needs to send tasks and to hear of them.

    Its loop runs in a thread of its own, started at first use. Thread-safe; after a fork, `default_client` makes a
    new one.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._names = Names(settings.namespace)
        self._signer = Signer.of(settings)
        self._reply_key = self._names.reply_key(secrets.token_hex(8))
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread
        self._publisher: Connection | None = None
        self._listener: Listener | None = None
        self._store: Store | None = None

    def send(self, call: TaskCall) -> TaskStatus:
        """Send one task; see `send_task`."""
        prepared = self._prepare(call)
        self._run(self._publish(prepared), self.settings.send_timeout)
        return prepared.status

    def send_many(self, calls: Iterable[TaskCall]) -> list[TaskStatus]:
        """Send many tasks; see `send_tasks`."""
        prepared = [self._prepare(call) for call in calls]
        for start in range(0, len(prepared), _PIPELINE):
            batch = prepared[start : start + _PIPELINE]
            errors = self._run(self._publish_batch(batch), self.settings.send_timeout)
            if any(errors):
                raise _partly_sent(prepared, start, errors)
        return [one.status for one in prepared]

    def publish_event(self, app: str, routing_key: str, body: Any) -> str:
        """Publish a user's own event; see `publish_event`."""
        limit = self.settings.max_arguments_bytes
        event_id, envelope = encode_event(app, routing_key, body, current_task_id.get(), limit)
        self._run(self._publish_event(routing_key, envelope, event_id), self.settings.send_timeout)
        return event_id

    def status(self, task_id: str, app: str) -> TaskStatus:
        """Return a task's status; see `get_status`."""
        if not ids.belongs_to(task_id, app):
            raise _not_found(task_id, app)
        recorded = self._open_store().read(task_id, app)
        heard = self._heard_end(task_id, app)
        if heard is not None and (recorded is None or heard.attempt >= recorded.attempt):
            recorded = recorded if recorded is not None and recorded.is_completed() else heard
        oldest = datetime.now(UTC) - timedelta(days=self.settings.retention_days)
        if recorded is not None and (recorded.finished_at is None or recorded.finished_at >= oldest):
            return replace(recorded, _reader=_READER)
        if recorded is None and ids.sent_at(task_id) >= oldest:
            return _pending(task_id, app)
        raise _not_found(task_id, app)

    def wait(self, status: TaskStatus, timeout: float) -> TaskStatus:
        """Return a task's last status; see `TaskStatus.wait`.

        The event of its end arrives here by itself if this process has sent the task. The store is asked as well,
        at growing intervals, for all the other cases.
        """
        listener = self._open_listener()
        deadline = time.monotonic() + timeout
        pause = _FIRST_POLL_SECONDS
        with listener.expecting(status.id) as expected:
            while True:
                remaining = deadline - time.monotonic()
                ended = expected.wait(max(0.0, min(pause, remaining)))
                if ended is not None and ended.app == status.app:
                    return replace(ended, _reader=_READER)
                current, store_error = self._look(status)
                if current.is_completed():
                    return current
                if remaining <= 0:
                    raise store_error or _wait_timeout(current, timeout)
                pause = min(pause * 2, _LAST_POLL_SECONDS)

    def close(self) -> None:
        """Close connections and thread. May be called twice."""
        with self._lock:
            loop, self._loop = self._loop, None
            store, self._store = self._store, None
        if store is not None:
            store.close()
        if loop is not None:
            closing = asyncio.run_coroutine_threadsafe(self._close_connections(), loop)
            concurrent.futures.wait([closing], timeout=5.0)
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join(timeout=5.0)

    def _heard_end(self, task_id: str, app: str) -> TaskStatus | None:
        """Return the end that `wait` may have told already, so that nobody sees a task go backwards."""
        end = self._listener.end_of(task_id) if self._listener is not None else None
        return end if end is not None and end.app == app else None

    def _look(self, status: TaskStatus) -> tuple[TaskStatus, StoreError | None]:
        try:
            return self.status(status.id, status.app), None
        except StoreError as exc:
            return status, exc  # the event may still tell

    def _prepare(self, call: TaskCall) -> _PreparedTask:
        declaration = _declaration_of(call.task)
        if declaration is not None:
            declaration.check_arguments(call.args, call.kwargs)
        name = declaration.name if declaration else str(call.task)
        app = identifier_of(call.app)
        body = encode_arguments(call.args, call.kwargs, self.settings.max_arguments_bytes)
        task_id = ids.new_task_id(app)
        identity = TaskIdentity(task_id, name, app, attempt=1, reply_to=self._reply_key)
        queue = self._names.task_queue(declaration.qos if declaration else "default")
        status = replace(_pending(task_id, app), task_name=name)
        return _PreparedTask(queue, identity, body, self._signer, encode_task(identity, body, self._signer), status)

    async def _publish(self, prepared: _PreparedTask) -> None:
        """Publish until the broker confirms, within the deadline; what may be there already is flagged as repeated."""
        connection = self._open_publisher()
        deadline = asyncio.get_running_loop().time() + self.settings.send_timeout
        may_be_there = False
        while True:
            await self._ready(connection, deadline, prepared, may_be_there=may_be_there)
            envelope = prepared.repeated if may_be_there else prepared.envelope
            try:
                async with asyncio.timeout_at(deadline):
                    return await connection.publish(self._names.tasks_exchange, prepared.queue, envelope)
            except ConnectionLostError:
                may_be_there = True
            except TimeoutError as exc:
                raise _outcome_unknown(prepared, "the broker did not confirm in time (is it blocked?)") from exc

    async def _publish_event(self, routing_key: str, envelope: Envelope, event_id: str) -> None:
        connection = self._open_publisher()
        deadline = asyncio.get_running_loop().time() + self.settings.send_timeout
        while True:
            await connection.ready(max(0.0, deadline - asyncio.get_running_loop().time()))
            try:
                async with asyncio.timeout_at(deadline):
                    return await connection.publish(self._names.events_exchange, routing_key, envelope, mandatory=False)
            except ConnectionLostError:
                continue  # the same id again: whoever has got it already can tell
            except TimeoutError as exc:
                reason = "the broker did not confirm in time (is it blocked?)"
                raise SendOutcomeUnknownError(
                    f"{reason}; subscribers may have got event {event_id} or not", event_id
                ) from exc

    async def _ready(
        self, connection: Connection, deadline: float, prepared: _PreparedTask, *, may_be_there: bool
    ) -> None:
        try:
            await connection.ready(max(0.0, deadline - asyncio.get_running_loop().time()))
        except BrokerError as exc:
            if may_be_there:
                raise _outcome_unknown(prepared, str(exc)) from exc
            raise

    async def _publish_batch(self, batch: Sequence[_PreparedTask]) -> list[BaseException | None]:
        return await asyncio.gather(*map(self._publish, batch), return_exceptions=True)

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
                self._listener = Listener(self.settings, self._reply_key)
                asyncio.run_coroutine_threadsafe(self._listener.start(), loop)
            return self._listener

    def _open_store(self) -> Store:
        from limetask.store import Store  # SQLAlchemy is slow to import, and a process may never read a status

        with self._lock:
            if self._store is None:
                self._store = Store(self.settings.resolved_store_url)
            return self._store

    async def _close_connections(self) -> None:
        if self._publisher is not None:
            await self._publisher.close()
        if self._listener is not None:
            await self._listener.close()


@dataclass(frozen=True, slots=True)
class _PreparedTask:
    queue: str
    identity: TaskIdentity
    body: bytes
    signer: Signer
    envelope: Envelope
    status: TaskStatus

    @property
    def repeated(self) -> Envelope:
        """The same task, for a queue where it may be already."""
        return encode_task(self.identity, self.body, self.signer, repeated=True)


class _DefaultReader:
    """How a TaskStatus finds the client of the process that it is in."""

    def read(self, task_id: str, app: str) -> TaskStatus:
        return default_client().status(task_id, app)

    def wait(self, status: TaskStatus, timeout: float) -> TaskStatus:
        return default_client().wait(status, timeout)


_READER = _DefaultReader()
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


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


def _declaration_of(task: str | TaskDeclaration) -> TaskDeclaration | None:
    if isinstance(task, TaskDeclaration):
        _check_importable(task)
        return task
    check_task_name(task)
    return find_task(task)


def _check_importable(task: TaskDeclaration) -> None:
    if task.name.startswith("__main__."):
        raise TaskNameError(
            f"task {task.name!r} is declared in the program that was started, where no worker can find it: "
            "move it to a module, or give it a name: @task(name='my_package.tasks.my_task')"
        )


def _pending(task_id: str, app: str) -> TaskStatus:
    return TaskStatus(task_id, Status.PENDING, app=app, sent_at=ids.sent_at(task_id), _reader=_READER)


def _not_found(task_id: object, app: str) -> NotFoundError:
    return NotFoundError(
        f"application {app!r} has no task {task_id!r}: the id is wrong, expired or another application's"
    )


def _wait_timeout(status: TaskStatus, timeout: float) -> WaitTimeoutError:
    return WaitTimeoutError(
        f"task {status.id} is {status.status} after {timeout:g} s of waiting; it goes on: wait again or ask later"
    )


def _outcome_unknown(prepared: _PreparedTask, reason: str) -> SendOutcomeUnknownError:
    task_id = prepared.status.id
    return SendOutcomeUnknownError(f"{reason}; task {task_id} may have been queued or not", task_id)


def _partly_sent(
    prepared: Sequence[_PreparedTask], start: int, errors: Sequence[BaseException | None]
) -> PartlySentError:
    statuses = [one.status for one in prepared]
    outcomes = [None] * start + list(errors)
    outcomes += [BrokerError("not tried")] * (len(prepared) - len(outcomes))
    sent = [status for status, error in zip(statuses, outcomes, strict=True) if error is None]
    unconfirmed = [status for status, error in zip(statuses, outcomes, strict=True) if error is not None]
    first = next(error for error in errors if error is not None)
    return PartlySentError(f"{len(sent)} of {len(statuses)} tasks were sent: {first}", sent, unconfirmed)
