"""The name that a declaration has when none is given."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from types import FrameType, FunctionType
from typing import Any

from limetask.errors import DeclarationError
from limetask.origin import calling_frame


def default_name(function: object, option: str) -> str:
    """Return `module.function`, which is empty if the function has no name of its own.

    Raises DeclarationError for what a decorator of another module has made without `functools.wraps`: all that it makes
    would have one name, in senders and workers alike, and one task would run in place of another. `option`, as in
    "@task(name={name!r})", is how to give a name, for the message.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__name__", None)
    if not module or not name or name == "<lambda>":
        return ""
    wrapped = _wrapped_elsewhere(function) if inspect.isfunction(function) else None
    if wrapped is None:
        return f"{module}.{name}"
    own_name = f"{wrapped.__module__}.{wrapped.__name__}"
    raise DeclarationError(
        f"{own_name} would be called {module}.{name}: its decorator has not given it its own name, so all functions "
        "under that decorator have the same one, and a worker could run one of them in place of another. Use "
        f"@functools.wraps(function) in the decorator, or give a name: {option.format(name=own_name)}"
    )


def _wrapped_elsewhere(function: FunctionType) -> FunctionType | None:
    """Return the function of another module that this one was made for, None if it was not made for one.

    One that a function defines and declares itself was, too, if what it holds was given to that function.
    """
    if "<locals>" not in function.__qualname__:
        return None
    held = _held_by(function)
    frame = calling_frame()
    if frame is not None and function.__code__ in frame.f_code.co_consts:
        given = {id(one) for one in _arguments_of(frame)}
        held = [one for one in held if id(one) in given]
    return next((one for one in _with_what_they_hold(held) if one.__module__ != function.__module__), None)


def _with_what_they_hold(functions: list[FunctionType]) -> Iterator[FunctionType]:
    """Yield these and, behind them, what they hold themselves: a decorator may stand above another one."""
    waiting, seen = list(functions), set[int]()
    while waiting:
        one = waiting.pop(0)
        if id(one) not in seen:
            seen.add(id(one))
            waiting += _held_by(one)
            yield one


def _held_by(function: FunctionType) -> list[FunctionType]:
    contents = []
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # not set yet
            contents.append(cell.cell_contents)
    return [one for one in contents if inspect.isfunction(one)]


def _arguments_of(frame: FrameType) -> list[Any]:
    code = frame.f_code
    count = code.co_argcount + code.co_kwonlyargcount
    return [frame.f_locals.get(name) for name in code.co_varnames[:count]]
