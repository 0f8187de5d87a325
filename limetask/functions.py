"""Which functions can be declared, for `@task` and `@event_handler` alike."""

from __future__ import annotations

import builtins
import contextlib
import inspect
import re
import sys
from collections.abc import Callable
from typing import Any

from limetask.errors import DeclarationError

_APPLICATION_NAMES = ("app", "application")


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return a function's signature without evaluating its annotations.

    Since Python 3.14 they are evaluated when they are asked for, and may name what is imported for type checkers only:
    https://docs.python.org/3/library/annotationlib.html
    """
    if sys.version_info >= (3, 14):
        import annotationlib

        return inspect.signature(function, annotation_format=annotationlib.Format.FORWARDREF)
    return inspect.signature(function)


def own_signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of a function itself, not of the one that it wraps; see `signature_of`."""
    if sys.version_info >= (3, 14):
        import annotationlib

        return inspect.signature(function, follow_wrapped=False, annotation_format=annotationlib.Format.FORWARDREF)
    return inspect.signature(function, follow_wrapped=False)


def check_is_function(function: object, decorator: str, example: str) -> None:
    """Raise DeclarationError for what is not a function, with what to do instead.

    `decorator` and `example`, as in "def name(app, ...)", are for the message.
    """
    if not inspect.isfunction(function):
        raise DeclarationError(f"{decorator} must decorate a function, not {function!r}: {_way_out(function, example)}")


def check_can_be_called(function: Callable[..., Any], what: str, result: str, example: str) -> None:
    """Raise DeclarationError for a method, and for what yields instead of running.

    `what` it is, what it does instead of yielding, and an `example` of a right one are for the message.
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise DeclarationError(f"{what} yields, and a worker would run nothing of it: {result}")
    if function.__code__ in _CONTEXT_MANAGERS:
        raise DeclarationError(
            f"{what} is a context manager, and a worker would not enter it: declare a function, `{example}`, that "
            "uses it in a `with` statement"
        )
    first = _first_name(function)
    if first in ("self", "cls"):
        raise DeclarationError(f"{what} {_method_fault(function, first)}: declare a function, `{example}`")


def check_application_is_first(function: Callable[..., Any], what: str, example: str) -> None:
    """Raise DeclarationError if a later parameter looks like the application, and the first does not."""
    first, *others = own_signature_of(function).parameters.values() or (None,)
    if first is None or _is_application(first):
        return
    for other in others:
        if _has_application_type(other) or (_is_application(other) and not _may_be_application(first)):
            raise DeclarationError(
                f"{what} has the parameter {other.name!r} after {first.name!r}, and the first argument is always the "
                f"application: declare it as `{example}`"
            )


def place_of(function: Callable[..., Any]) -> str:
    """Return where a function is defined, for messages."""
    code = getattr(inspect.unwrap(function), "__code__", function.__code__)
    return f"{function.__module__}.{function.__qualname__} ({code.co_filename}:{code.co_firstlineno})"


def advice_on_one_name(function: Callable[..., Any], option: str) -> str:
    """Return what to do about two functions under one name, the second of which is `function`."""
    if "<locals>" not in function.__qualname__:
        return f"Give one of them another name: {option}"
    return (
        f"Functions that another function makes share its name: use @functools.wraps(function) where a decorator makes "
        f"them, or give each a name, {option}"
    )


def _first_name(function: Callable[..., Any]) -> str:
    """Return the name of the first parameter: of what is wrapped, if the wrapper passes on whatever comes."""
    first = next(iter(own_signature_of(function).parameters.values()), None)
    if first is not None and first.kind is first.VAR_POSITIONAL:
        first = next(iter(signature_of(function).parameters.values()), None)
    return first.name if first else ""


def _way_out(function: object, example: str) -> str:
    if isinstance(function, staticmethod):
        return "put @staticmethod above it"
    if isinstance(function, type):
        return f"declare a function, `{example}`, that makes the object and uses it"
    if not callable(function) and not isinstance(function, classmethod):
        return f"put it above `{example}`"
    return f"declare a function, `{example}`, that calls it"


def _method_fault(function: Callable[..., Any], first: str) -> str:
    owner = function.__qualname__.rpartition(".")[0]
    if owner and not owner.endswith("<locals>"):
        return f"is a method of {owner.rpartition('.')[2]}, and a worker has no object to call it on"
    return f"calls its first parameter {first!r}, and that is always the application"


def _make_manager_code() -> frozenset[Any]:
    def manage() -> Any:
        yield

    async def manage_async() -> Any:
        yield

    return frozenset(
        {contextlib.contextmanager(manage).__code__, contextlib.asynccontextmanager(manage_async).__code__}
    )


# Each function that contextlib makes has the same code.
_CONTEXT_MANAGERS = _make_manager_code()


def _is_application(parameter: inspect.Parameter) -> bool:
    return _has_application_type(parameter) or (
        parameter.name in _APPLICATION_NAMES and _is_single(parameter) and not _has_builtin_type(parameter)
    )


def _is_single(parameter: inspect.Parameter) -> bool:
    return parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)


def _has_application_type(parameter: inspect.Parameter) -> bool:
    return _is_single(parameter) and _type_text(parameter).endswith("Application")


def _has_builtin_type(parameter: inspect.Parameter) -> bool:
    return hasattr(builtins, _type_text(parameter))


def _may_be_application(parameter: inspect.Parameter) -> bool:
    """Return True for a parameter with a type that an application may have, whatever the parameter is called."""
    return parameter.name != "event" and _type_text(parameter) != "" and not _has_builtin_type(parameter)


def _type_text(parameter: inspect.Parameter) -> str:
    """Return the first name of an annotation without its module, whether it is a type or the text of one."""
    annotation = parameter.annotation
    if annotation is parameter.empty:
        return ""
    text = annotation.__qualname__ if isinstance(annotation, type) else _text_of(annotation)
    return re.split(r"[\[|\s]", text.strip("'\" "), maxsplit=1)[0].rpartition(".")[2]


def _text_of(annotation: object) -> str:
    if isinstance(annotation, str):
        return annotation
    return str(getattr(annotation, "__forward_arg__", annotation))
