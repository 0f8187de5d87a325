"""Which of a task's arguments a message cannot carry, and what to send instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from limetask.foreign import error_text, shortened, type_name
from limetask.plain import way_out

UNKNOWN_TYPE = "a value of type"
"""How an error of `pack` begins for a value whose type it does not know."""

_MAX_DEPTH = 20
# How the errors of msgpack, and of our own limit for sets, begin.
_NESTING_ERRORS = ("recursion limit exceeded", "sets are nested")

_Pack = Callable[[Any], object]


def explain_arguments(args: Sequence[Any], kwargs: Mapping[str, Any], cause: Exception, pack: _Pack) -> str:
    """Return which argument `pack` raises an error for, and why; `cause` is what it has raised for all of them."""
    named = _safely(lambda: [(f"argument {position}", value) for position, value in enumerate(args, 1)])
    named += _safely(lambda: [(f"argument {shortened(name)}", value) for name, value in kwargs.items()])
    for path, value in named:
        culprit = _find_culprit(value, path, pack)
        if culprit:
            return culprit
    return f"the arguments cannot be carried by a task message: {error_text(cause)}"


def _find_culprit(value: Any, path: str, pack: _Pack, depth: int = 0) -> str | None:
    try:
        pack(value)
    except Exception as exc:  # noqa: BLE001 - a value's own code may raise anything
        for part_path, part in _safely(lambda: _parts(value, path)) if depth < _MAX_DEPTH else []:
            culprit = _find_culprit(part, part_path, pack, depth + 1)
            if culprit:
                return culprit
        return _complaint(value, path, exc)
    return None


def _safely(parts: Callable[[], list[tuple[str, Any]]]) -> list[tuple[str, Any]]:
    """Return no parts of a value that raises an error when it is asked for them: then it is the culprit itself."""
    try:
        return parts()
    except Exception:  # noqa: BLE001 - of the value's own code
        return []


def _parts(value: Any, path: str) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        keys = [(f"a key of {path}", key) for key in value]
        return keys + [(f"{path}[{shortened(key)}]", part) for key, part in value.items()]
    if isinstance(value, list | tuple):
        return [(f"{path}[{position}]", part) for position, part in enumerate(value)]
    if isinstance(value, set | frozenset):
        return [(f"a member of {path}", part) for part in value]
    return []


def _complaint(value: Any, path: str, cause: Exception) -> str:
    what = _described(value, cause)
    if what is None:
        return (
            f"{path} is {UNKNOWN_TYPE} {type_name(value)}, and reading it raises {error_text(cause)}: "
            "send what it stands for as a plain value"
        )
    is_unknown = what.startswith(UNKNOWN_TYPE) or isinstance(value, int)
    advice = f": send a plain value, such as {way_out(value)}" if is_unknown else ""
    return f"{path} is {what}, which a task message cannot carry{advice}"


def _described(value: Any, cause: Exception) -> str | None:
    """Return what is wrong with a value for packing as such, None if it is an error of the value's own code."""
    match cause:
        case UnicodeEncodeError():
            return "a text that is no valid Unicode"
        case RecursionError():
            return _too_deep(value)
        case TypeError() if type(cause) is TypeError and str(cause).startswith("a "):
            return str(cause)
        case ValueError() if type(cause) is ValueError and str(cause).startswith(_NESTING_ERRORS):
            return _too_deep(value)
    return None


def _too_deep(value: Any) -> str:
    return f"a {type_name(value)} that holds itself or is nested too deeply"
