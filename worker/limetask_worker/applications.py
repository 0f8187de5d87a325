"""Makes the application that a task or an event handler runs for, with the platform's own factory."""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import AsyncIterator, Callable
from types import CoroutineType
from typing import Any, NoReturn

from limetask.application import Application
from limetask.errors import ConfigurationError
from limetask.registry import TaskDeclaration
from limetask_worker.forked import end_if_forked
from limetask_worker.fresh_contexts import in_thread
from limetask_worker.unrun import check_has_run

ApplicationFactory = Callable[[str], Any]
"""Gets an identifier and returns an application, or a context manager that gives one and is closed after the run."""


def load_application_factory(path: str) -> ApplicationFactory:
    """Return the factory that `package.module:callable` names; `limetask.Application` if `path` is empty.

    Raises ConfigurationError if there is no such callable, or it is one that makes no application. What the module
    itself raises passes through.
    """
    if not path:
        return Application
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise ConfigurationError(f"LIMETASK_APPLICATION_FACTORY is {path!r}: it must be 'package.module:callable'")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{module_name}.".startswith(f"{exc.name}."):
            raise
        raise ConfigurationError(f"LIMETASK_APPLICATION_FACTORY: there is no module {module_name!r} here") from exc
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise ConfigurationError(f"LIMETASK_APPLICATION_FACTORY: {module_name} has no callable {attribute!r}")
    if isinstance(factory, TaskDeclaration):
        raise ConfigurationError(
            f"LIMETASK_APPLICATION_FACTORY: {path} is a task: name a function that makes an application from its "
            "identifier"
        )
    _check_yields_as_a_manager(factory, path)
    return factory  # type: ignore[no-any-return]


def _check_yields_as_a_manager(factory: Callable[..., Any], path: str) -> None:
    if inspect.isgeneratorfunction(factory) or inspect.isasyncgenfunction(factory):
        decorator = "asynccontextmanager" if inspect.isasyncgenfunction(factory) else "contextmanager"
        raise ConfigurationError(
            f"LIMETASK_APPLICATION_FACTORY: {path} yields, so each call would return a generator instead of an "
            f"application: put @contextlib.{decorator} above it"
        )


class Opened:
    """Gives a fresh application, closed afterwards if it is a context manager itself.

    To enter it raises ConfigurationError if the factory makes asynchronous ones, and whatever the factory raises. An
    ExitStack, or a `nullcontext`, would do the same and take longer than all else around a short body.
    """

    __slots__ = ("_identifier", "_make", "_manager")

    def __init__(self, make_application: ApplicationFactory, identifier: str) -> None:
        self._make = make_application
        self._identifier = identifier
        self._manager: contextlib.AbstractContextManager[Any] | None = None

    def __enter__(self) -> Any:
        application = self._make(self._identifier)
        if hasattr(application, "__enter__"):
            self._manager = application
            return application.__enter__()
        if hasattr(application, "__aenter__") or isinstance(application, CoroutineType):
            _refuse_asynchronous(application)
        check_has_run(application, "the application factory")
        return application

    def __exit__(self, *error: Any) -> bool | None:
        return None if self._manager is None else self._manager.__exit__(*error)


@contextlib.asynccontextmanager
async def opened_async(make_application: ApplicationFactory, identifier: str) -> AsyncIterator[Any]:
    """Give a fresh application to a coroutine; the factory and its context managers may be asynchronous too."""
    application = await in_thread(_made, make_application, identifier)
    if inspect.isawaitable(application):
        application = await application
    if hasattr(application, "__aenter__"):
        async with application as entered:
            yield entered
    elif hasattr(application, "__enter__"):
        with application as entered:
            yield entered
    else:
        check_has_run(application, "the application factory")
        yield application


def _made(make_application: ApplicationFactory, identifier: str) -> Any:
    try:
        return make_application(identifier)
    finally:
        end_if_forked()


def _refuse_asynchronous(application: Any) -> NoReturn:
    if isinstance(application, CoroutineType):
        application.close()  # without Python's own warning
    raise ConfigurationError(
        "the application factory is asynchronous, and only what is `async def` can use what it makes"
    )
