"""The tasks that this process knows, by name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from limetask.errors import ArgumentsError, DeclarationError, DuplicateTaskError, TaskNameError
from limetask.foreign import shortened
from limetask.functions import (
    advice_on_one_name,
    check_application_is_first,
    check_can_be_called,
    check_is_function,
    place_of,
    signature_of,
)
from limetask.origin import is_redeclaration, origin_of_caller
from limetask.topology import QOS_CATEGORIES, QoS

# A routing key holds 255 bytes: "core.task." + name + ".success.v1" or ".failure.v1".
MAX_TASK_NAME_BYTES = 234

MAX_TIME_LIMIT = 366 * 24 * 3600
"""How many seconds a task or a handler may be given: clocks and timers take no number of any size."""

# Of the ways to call one function few are used, unless it takes any number of arguments.
_KNOWN_CALLS = 100

_NAME = re.compile(r"[^\s.*#\x00-\x1f\x7f]+(\.[^\s.*#\x00-\x1f\x7f]+)+")

_Shape = tuple[int, frozenset[str]]


class TaskDeclaration:
    """A function and how it is to be run.

    `is_async`: it is an `async def`. `acks_late`: acked after its end, so that it is run again if its worker dies.
    `qos`: which queue it waits in. `soft_time_limit`: seconds after which SoftTimeLimitExceeded is raised in it.
    `time_limit`: seconds after which it is cut off. None is no limit.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str,
        acks_late: bool,
        qos: QoS,
        time_limit: float | None,
        soft_time_limit: float | None = None,
    ) -> None:
        """Raises a DeclarationError for a function or an option that cannot work."""
        check_is_function(function, "@task", _example())
        _check_is_named(function, name)
        check_task_name(name)
        _check_function(function, name)
        _check_options(name, acks_late, qos)
        check_time_limits(f"task {name!r}", time_limit, soft_time_limit)
        self.origin = origin_of_caller()
        self._signature = signature_of(function)
        self.is_async = inspect.iscoroutinefunction(function)
        self.function = function
        self.name = name
        self.acks_late = acks_late
        self.qos = qos
        self.time_limit = time_limit
        self.soft_time_limit = soft_time_limit
        self._known_calls: set[_Shape] = set()

    def check_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise ArgumentsError if the function cannot be called with an application and these arguments."""
        shape = _shape_of(args, kwargs)
        if shape in self._known_calls:
            return
        try:
            self._signature.bind(None, *args, **kwargs)
        except TypeError as exc:
            raise ArgumentsError(
                f"task {self.name!r} cannot be called so: {exc}; it is {self._signature}. What is sent begins with the "
                "application, and its arguments follow as in a call"
            ) from None
        if shape is not None and len(self._known_calls) < _KNOWN_CALLS:
            self._known_calls.add(shape)


_declared: dict[str, TaskDeclaration] = {}


def register(declaration: TaskDeclaration) -> None:
    """Make a task known; raises DuplicateTaskError if another function has its name already.

    The same function again, as after a reload of its module, replaces the older declaration.
    """
    other = _declared.get(declaration.name)
    if other is not None and not is_redeclaration(
        other.function, other.origin, declaration.function, declaration.origin
    ):
        raise DuplicateTaskError(
            f"two functions are declared as task {declaration.name!r}: {place_of(other.function)}, declared at "
            f"{other.origin.place}, and {place_of(declaration.function)}, declared at {declaration.origin.place}. "
            f"{advice_on_one_name(declaration.function, '@task(name=...)')}"
        )
    _declared[declaration.name] = declaration


def find_task(name: str) -> TaskDeclaration | None:
    """Return the task of that name if this process has declared it."""
    return _declared.get(name)


def declared_tasks() -> Mapping[str, TaskDeclaration]:
    """Return all tasks that this process has declared, by name."""
    return dict(_declared)


def check_task_name(name: str) -> None:
    """Raise TaskNameError unless `name` is dotted words that fit into a routing key."""
    if not isinstance(name, str) or not name:
        raise TaskNameError("a task needs a name, such as 'my_package.tasks.my_task'")
    if not _NAME.fullmatch(name) or not name.isprintable():
        raise TaskNameError(
            f"{name!r} is no task name: it must be words joined by dots, without spaces, * or #, "
            "such as 'my_package.tasks.my_task'"
        )
    length = len(name.encode("utf-8", "replace"))
    if length > MAX_TASK_NAME_BYTES:
        raise TaskNameError(f"task name {name[:40]!r}... has {length} bytes and may have {MAX_TASK_NAME_BYTES}")


def _shape_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> _Shape | None:
    """Return how many arguments there are and which names: they alone decide whether a call fits a function.

    None for what is no list and no dict, which may be anything.
    """
    if type(args) in (tuple, list) and type(kwargs) is dict:
        return len(args), frozenset(kwargs)
    return None


def _example(function: Callable[..., Any] | None = None) -> str:
    name = getattr(function, "__name__", "")
    return f"def {name if name.isidentifier() else 'my_task'}(app, ...)"


def _check_is_named(function: Callable[..., Any], name: str) -> None:
    if not name:
        raise TaskNameError(
            f"{function!r} has no name that senders could use: give it one, @task(name='my_package.tasks.my_task')"
        )


def _check_function(function: Callable[..., Any], name: str) -> None:
    what, example = f"task {name!r}", _example(function)
    check_can_be_called(function, what, "a task returns its result", example)
    parameters = list(signature_of(function).parameters.values())
    if not parameters or parameters[0].kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD):
        raise DeclarationError(
            f"{what} has no parameter for the application: declare it as `{example}`, the first argument is always "
            "the application"
        )
    check_application_is_first(function, what, example)


def _check_options(name: str, acks_late: object, qos: object) -> None:
    if not isinstance(acks_late, bool):
        raise DeclarationError(f"task {name!r}: acks_late is True or False, not {shortened(acks_late)}")
    if qos not in QOS_CATEGORIES:
        raise DeclarationError(f"task {name!r}: qos is one of {', '.join(QOS_CATEGORIES)}, not {shortened(qos)}")


def check_time_limits(of: str, time_limit: object, soft_time_limit: object) -> None:
    """Raise DeclarationError unless both limits are None or seconds, and the soft one is less; `of` is whose."""
    for option, value in (("time_limit", time_limit), ("soft_time_limit", soft_time_limit)):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (is_number and value > 0):  # type: ignore[operator]
            raise DeclarationError(f"{of}: {option} is a number of seconds above 0, not {shortened(value)}")
        if value is not None and value > MAX_TIME_LIMIT:  # type: ignore[operator]
            raise DeclarationError(
                f"{of}: {option} may be {MAX_TIME_LIMIT:,} seconds (a year), not {shortened(value)}; None is no limit"
            )
    if time_limit is not None and soft_time_limit is not None and soft_time_limit >= time_limit:  # type: ignore[operator]
        raise DeclarationError(f"{of}: soft_time_limit must be less than time_limit, or it comes too late")
