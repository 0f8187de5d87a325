"""How tasks and events are prepared and published: the same for `limetask.client` and `limetask.aio`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from limetask import ids
from limetask.application import AnyApplication, identifier_of
from limetask.arguments import encode_arguments
from limetask.codec import encode_repeated, encode_task
from limetask.context import current_task_id
from limetask.errors import (
    ArgumentsError,
    BrokerError,
    ConnectionLostError,
    LimetaskError,
    SendOutcomeUnknownError,
    TaskNameError,
    UsageError,
)
from limetask.events import encode_event
from limetask.foreign import error_text, shortened
from limetask.message import Envelope, TaskIdentity
from limetask.reading import pending
from limetask.registry import TaskDeclaration, check_task_name, find_task
from limetask.settings import Settings
from limetask.signing import Signer
from limetask.status import StatusReader, TaskStatus
from limetask.topology import QOS_CATEGORIES, Names

_CALL_FORM = (
    "A call is `TaskCall(task, app, [argument], {'name': argument})`, or what `my_task.prepare(app, ...)` returns"
)
NOT_IN_TIME = "the broker did not confirm in time (is it blocked?)"


@dataclass(frozen=True, slots=True)
class TaskCall:
    """One task to be sent: which, for whom, with what. For `send_tasks`."""

    task: str | TaskDeclaration
    app: AnyApplication
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PreparedTask:
    """A task that can be sent: its message, the queue that it goes to, and the status that its sender gets."""

    queue: str
    envelope: Envelope
    status: TaskStatus

    @property
    def repeated(self) -> Envelope:
        """The same task, for a queue where it may be already."""
        return encode_repeated(self.envelope)

    def outcome_unknown(self, reason: str) -> SendOutcomeUnknownError:
        """Return the error for a send that was not confirmed."""
        task_id = self.status.id
        return SendOutcomeUnknownError(f"{reason}; task {task_id} may have been queued or not", task_id)


@dataclass(frozen=True, slots=True)
class PreparedEvent:
    """A user's own event that can be published."""

    id: str
    routing_key: str
    envelope: Envelope

    def outcome_unknown(self, reason: str) -> SendOutcomeUnknownError:
        """Return the error for an event that was not confirmed."""
        return SendOutcomeUnknownError(f"{reason}; subscribers may have got event {self.id} or not", self.id)


class Publisher(Protocol):
    """What a connection must offer to whoever publishes on it."""

    async def ready(self, timeout: float) -> None:
        """Return once it can be used; raise BrokerError when `timeout` seconds are over."""

    def publish(
        self, exchange: str, routing_key: str, envelope: Envelope, *, mandatory: bool = True
    ) -> Awaitable[None]:
        """Publish, and end when the broker has confirmed it; ConnectionLostError means that it is not known."""


class _Publish(Protocol):
    def __call__(self, connection: Publisher, *, may_be_there: bool) -> Awaitable[None]: ...


class Preparer:
    """Checks what is to be sent, and makes its messages. Does no I/O, and is thread-safe.

    `reply_key` is where the sender hears of its tasks' ends, `reader` what their statuses are refreshed with.
    """

    def __init__(self, settings: Settings, reply_key: str, reader: StatusReader) -> None:
        names = Names(settings.namespace)
        self._settings = settings
        self._queues = {qos: names.task_queue(qos) for qos in QOS_CATEGORIES}
        self._signer = Signer.of(settings)
        self._reply_key = reply_key
        self._reader = reader

    def task(self, call: TaskCall) -> PreparedTask:
        """Return a task that can be sent; raises what `send_task` raises for one that cannot."""
        declaration, app = _checked(call)
        name = declaration.name if declaration else str(call.task)
        body = encode_arguments(call.args, call.kwargs, self._settings.max_arguments_bytes)
        task_id = ids.new_task_id(app)
        identity = TaskIdentity(task_id, name, app, attempt=1, reply_to=self._reply_key)
        return PreparedTask(
            self._queues[declaration.qos if declaration else "default"],
            encode_task(identity, body, self._signer),
            pending(task_id, app, self._reader, name),
        )

    def tasks(self, calls: Iterable[TaskCall]) -> list[PreparedTask]:
        """Return tasks that can be sent; raises what `send_tasks` raises before it sends the first."""
        if isinstance(calls, str | Mapping | TaskCall) or not isinstance(calls, Iterable):
            raise UsageError(f"send_tasks takes a list of calls, and not {shortened(calls)}. {_CALL_FORM}")
        return [self.task(call) for call in calls]

    def event(self, app: AnyApplication, routing_key: str, body: Any) -> PreparedEvent:
        """Return an event that can be published; raises what `publish_event` raises for one that cannot."""
        limit = self._settings.max_arguments_bytes
        event_id, envelope = encode_event(identifier_of(app), routing_key, body, current_task_id.get(), limit)
        return PreparedEvent(event_id, routing_key, envelope)


class Sender:
    """Publishes what is prepared until the broker confirms, within the deadline. Belongs to one asyncio loop.

    `open_publisher` returns the connection to publish on, always the same. `deadline` is by the loop's clock.
    """

    def __init__(self, settings: Settings, open_publisher: Callable[[], Publisher]) -> None:
        self._timeout = settings.send_timeout
        self._names = Names(settings.namespace)
        self._open_publisher = open_publisher

    async def send(self, prepared: PreparedTask, *, deadline: float | None = None, may_be_there: bool = False) -> None:
        """Publish a task until the broker confirms; what may be there already is flagged as repeated."""

        def publish(connection: Publisher, *, may_be_there: bool) -> Awaitable[None]:
            envelope = prepared.repeated if may_be_there else prepared.envelope
            return connection.publish(self._names.tasks_exchange, prepared.queue, envelope)

        await self._until_confirmed(publish, prepared.outcome_unknown, deadline, may_be_there=may_be_there)

    async def publish_event(self, event: PreparedEvent) -> None:
        """Publish an event until the broker confirms; whoever has got it already can tell by its id."""

        def publish(connection: Publisher, *, may_be_there: bool) -> Awaitable[None]:  # noqa: ARG001
            return connection.publish(self._names.events_exchange, event.routing_key, event.envelope, mandatory=False)

        await self._until_confirmed(publish, event.outcome_unknown)

    async def _until_confirmed(
        self,
        publish: _Publish,
        outcome_unknown: Callable[[str], SendOutcomeUnknownError],
        deadline: float | None = None,
        *,
        may_be_there: bool = False,
    ) -> None:
        connection = self._open_publisher()
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._timeout if deadline is None else deadline
        while True:
            try:
                await connection.ready(max(0.0, deadline - clock()))
            except BrokerError as exc:
                if may_be_there:
                    raise outcome_unknown(str(exc)) from exc
                raise
            try:
                async with asyncio.timeout_at(deadline):
                    return await publish(connection, may_be_there=may_be_there)
            except ConnectionLostError:
                may_be_there = True
            except TimeoutError as exc:
                raise outcome_unknown(NOT_IN_TIME) from exc


def _checked(call: TaskCall) -> tuple[TaskDeclaration | None, str]:
    """Return the declaration of a call's task, if there is one, and for which application it is to run.

    Raises what `send_task` raises for a wrong call.
    """
    try:
        _check_call(call)
        declaration = _declaration_of(call.task)
        app = identifier_of(call.app)  # before the arguments: who forgets it has the first of them there
        if declaration is not None:
            declaration.check_arguments(call.args, call.kwargs)
    except LimetaskError:
        raise
    except Exception as exc:  # of the code of a list, a dict or a lazy object that it is made of
        raise ArgumentsError(f"the call of a task cannot be read: it raises {error_text(exc)}. {_CALL_FORM}") from exc
    return declaration, app


def _check_call(call: object) -> None:
    if not isinstance(call, TaskCall):
        raise UsageError(f"{shortened(call)} is not a call of a task. {_CALL_FORM}")
    if not isinstance(call.args, list | tuple):
        raise ArgumentsError(f"a TaskCall's args are a list or a tuple, not {shortened(call.args)}. {_CALL_FORM}")
    if not isinstance(call.kwargs, dict):
        raise ArgumentsError(f"a TaskCall's kwargs are a dict, not {shortened(call.kwargs)}. {_CALL_FORM}")
    for name in call.kwargs:
        if not isinstance(name, str):
            raise ArgumentsError(
                f"the names in a TaskCall's kwargs are text, not {shortened(name)}: no function could be called with "
                f"it. {_CALL_FORM}"
            )


def _declaration_of(task: str | TaskDeclaration) -> TaskDeclaration | None:
    if isinstance(task, TaskDeclaration):
        _check_importable(task)
        return task
    if not isinstance(task, str):
        raise TaskNameError(
            f"what is sent is a task that @task has declared, or its name such as 'my_package.tasks.my_task': "
            f"{shortened(task)} is neither"
        )
    check_task_name(task)
    return find_task(task)


def _check_importable(task: TaskDeclaration) -> None:
    if task.name.startswith("__main__."):
        raise TaskNameError(
            f"task {task.name!r} is declared in the program that was started, where no worker can find it: "
            "move it to a module, or give it a name: @task(name='my_package.tasks.my_task')"
        )
