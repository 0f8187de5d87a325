"""`@worker_process_started` and `@worker_process_stopping`: functions that a worker's processes call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from limetask.errors import DeclarationError

Hook = TypeVar("Hook", bound=Callable[[], Any])

_started: list[Callable[[], Any]] = []
_stopping: list[Callable[[], Any]] = []


def worker_process_started(function: Hook) -> Hook:
    """Have a function called in each process of a worker that runs your code, before it takes its first task or event.

    Open there what a process cannot share: connection pools, clients, exporters of traces. It is called once in each
    process, in the main thread, after your packages are imported, and where no asyncio loop runs; several in the order
    in which they are declared. An exception keeps the worker from starting, and is told with its traceback.

    The function takes no arguments and is not `async def`; it stays what it was. Raises DeclarationError otherwise.
    """
    return _declared(_started, function, "worker_process_started")


def worker_process_stopping(function: Hook) -> Hook:
    """Have a function called in each process of a worker that runs your code, before that process ends.

    It is called in the main thread when all tasks have ended, or been cut off, and their ends are told: when the worker
    stops, when a process makes room for another, also after a time limit, but not if it is killed or could not start.
    Several are called in the opposite order; an exception is logged, and the others are called all the same. All
    together, and the handlers of `atexit` after them, have 10 seconds.

    The function takes no arguments and is not `async def`; it stays what it was. Raises DeclarationError otherwise.
    """
    return _declared(_stopping, function, "worker_process_stopping")


def started_hooks() -> Sequence[Callable[[], Any]]:
    """Return the functions to be called when a process has started, in their order."""
    return tuple(_started)


def stopping_hooks() -> Sequence[Callable[[], Any]]:
    """Return the functions to be called before a process ends, in their order."""
    return tuple(reversed(_stopping))


def _declared(hooks: list[Callable[[], Any]], function: Hook, decorator: str) -> Hook:
    _check(function, decorator)
    if function not in hooks:
        hooks.append(function)
    return function


def _check(function: object, decorator: str) -> None:
    if not callable(function):
        raise DeclarationError(f"@{decorator} declares a function, and {function!r} is not one")
    name = getattr(function, "__qualname__", repr(function))
    is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    if is_async or inspect.isgeneratorfunction(function):
        raise DeclarationError(
            f"@{decorator} above {name}: a hook is called where no asyncio loop runs, and returns when it is done, so "
            "it is neither `async def` nor a generator; open what belongs to a loop in the application factory"
        )
    try:
        inspect.signature(function).bind()
    except TypeError as exc:
        raise DeclarationError(f"@{decorator} above {name}: a hook is called without arguments, and {exc}") from None
    except ValueError:
        return  # a builtin function does not tell its parameters
