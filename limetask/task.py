"""`@task`: declare a function as a task."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from limetask.application import AnyApplication
from limetask.client import TaskCall, send_task
from limetask.default_names import default_name
from limetask.other_names import OF_TASKS, advising
from limetask.registry import TaskDeclaration, register
from limetask.status import TaskStatus
from limetask.topology import QoS

App = TypeVar("App", contravariant=True)
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result", covariant=True)


@advising(OF_TASKS)
class Task(TaskDeclaration, Generic[App, Parameters, Result]):
    """A declared task. Call it to run it here and now; `send` it to have a worker run it."""

    def __call__(self, app: App, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        """Run the function in this process, as if it were not declared as a task."""
        result: Result = self.function(app, *args, **kwargs)
        return result

    def send(self, app: AnyApplication, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> TaskStatus:
        """Send the task to be run for `app`; see `limetask.send_task` for what it returns and raises."""
        return send_task(self, app, *args, **kwargs)

    def prepare(self, app: AnyApplication, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> TaskCall:
        """Return the call without sending it: for `limetask.send_tasks`."""
        return TaskCall(self, app, args, kwargs)

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    def __reduce__(self) -> str:
        # As a function is pickled: by its name in its module, where whoever loads it finds the task.
        return str(self.function.__qualname__)


@overload
def task(function: Callable[Concatenate[App, Parameters], Result], /) -> Task[App, Parameters, Result]: ...


@overload
def task(
    *,
    name: str | None = None,
    acks_late: bool = False,
    qos: QoS = "default",
    time_limit: float | None = None,
    soft_time_limit: float | None = None,
) -> Callable[[Callable[Concatenate[App, Parameters], Result]], Task[App, Parameters, Result]]: ...


def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    acks_late: bool = False,
    qos: QoS = "default",
    time_limit: float | None = None,
    soft_time_limit: float | None = None,
) -> Any:
    """Declare a function, plain or `async def`, as a task. Its first argument is always the application.

    `name` is how senders call it, by default `module.function`. With `acks_late` the task is run again if its
    worker dies, so it must be idempotent; without, it is run once at most. `qos` is "asap", "default" or
    "background": each category has a queue of its own.

    After `soft_time_limit` seconds SoftTimeLimitExceeded is raised in the body, as soon as it runs Python code again.
    After `time_limit` seconds the task is FAILURE, and its worker process is replaced once its other tasks have ended.

    Raises DeclarationError for a function or an option that cannot work, or one that a decorator of another module has
    not given its own name; TaskNameError for a bad name, and DuplicateTaskError if another function has that name.
    """

    def declare(declared: Callable[..., Any]) -> Task[Any, Any, Any]:
        made: Task[Any, Any, Any] = Task(
            declared,
            name=default_name(declared, "@task(name={name!r})") if name is None else name,
            acks_late=acks_late,
            qos=qos,
            time_limit=time_limit,
            soft_time_limit=soft_time_limit,
        )
        functools.update_wrapper(made, declared, updated=())
        register(made)
        return made

    return declare if function is None else declare(function)
