"""Imports the packages that hold tasks and event handlers, wholly or not at all."""

from __future__ import annotations

import importlib
import keyword
import pkgutil
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from limetask.errors import ConfigurationError
from limetask.handlers import declared_handlers
from limetask.registry import declared_tasks
from limetask_worker.applications import ApplicationFactory, load_application_factory
from limetask_worker.forked import end_if_forked
from limetask_worker.patches import who_replaced_threads


class LoadingError(Exception):
    """A package could not be imported, or declares no task; the message is for the person who started the worker."""


def load(packages: Sequence[str]) -> None:
    """Import `packages` with all their submodules.

    Raises LoadingError, with the traceback, at the first module that cannot be imported, or that replaces Python's
    threads, if one is imported under two names, and if nothing is declared.
    """
    for package in packages:
        _check_threads(package)  # before the import as well: what Python runs at its start may have replaced them
        _import_with_submodules(package)
        _check_names(package)
    if not declared_tasks() and not declared_handlers():
        raise LoadingError(
            f"neither a task nor an event handler is declared in {', '.join(packages)}: declare one with @task"
        )


def load_factory(path: str) -> ApplicationFactory:
    """Return the application factory that a setting names.

    Raises ConfigurationError if there is none, and LoadingError, with the traceback, if it cannot be imported.
    """
    try:
        try:
            factory = load_application_factory(path)
        finally:
            end_if_forked()
    except (ConfigurationError, KeyboardInterrupt):
        raise
    except BaseException as exc:  # the border to user code: pytest.skip and asyncio.CancelledError are none
        text = traceback.format_exc().rstrip()
        _check_threads(path)  # with other threads running, their replacement may break the import itself
        raise LoadingError(f"cannot import LIMETASK_APPLICATION_FACTORY ({path}):\n\n{text}") from exc
    _check_threads(path)
    return factory


def _import_with_submodules(package: str) -> None:
    _import(package)
    for module in _submodules(package):
        _import(module)


def _check_names(package: str) -> None:
    """Refuse a module that is there twice, since its file was imported under another name as well."""
    # A module that stands in sys.modules under two names was executed once.
    files = {id(module): (_file_of(module), name) for name, module in list(sys.modules.items())}
    names = dict(sorted(files.values(), key=lambda found: _is_in(package, found[1])))
    for file, name in files.values():
        if file and name != names[file] and _is_in(package, names[file]):
            raise LoadingError(
                f"{file} was imported as {names[file]} and as {name}, so it was executed twice and its tasks have two "
                "names: give the worker the name under which your own code imports it, and start it where that works"
            )


def _file_of(module: object) -> str:
    origin = getattr(getattr(module, "__spec__", None), "origin", None)
    return origin if isinstance(origin, str) and origin.endswith(".py") else ""


def _is_in(package: str, module: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


def _import(module: str) -> None:
    if not all(module.split(".")) or "/" in module:
        raise LoadingError(_not_found_message(module))
    try:
        _import_in_this_process(module)
    except ModuleNotFoundError as exc:
        if _names(exc, module):
            raise LoadingError(_not_found_message(module)) from exc
        raise LoadingError(_import_failed_message(module)) from exc
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # the border to user code, as above
        message = _import_failed_message(module)
        _check_threads(module)  # with other threads running, their replacement may break the import itself
        raise LoadingError(message) from exc
    _check_threads(module)


def _check_threads(module: str) -> None:
    check_threads(f"{module} was imported")


def check_threads(event: str) -> None:
    """Raise LoadingError if greenlets have taken the place of threads; `event` is when it must have happened."""
    patch = who_replaced_threads()
    if patch is not None:
        raise LoadingError(
            f"{patch} has replaced Python's threads by greenlets when {event}. No task would ever run: the worker "
            "needs real threads. Have only the web server call it, and not a module that the worker imports"
        )


def _import_in_this_process(module: str) -> None:
    try:
        importlib.import_module(module)
    finally:
        end_if_forked()


def _names(missing: ModuleNotFoundError, module: str) -> bool:
    """Return True if it is `module` itself, or a package that it is in, that is not there."""
    return missing.name is not None and f"{module}.".startswith(f"{missing.name}.")


def _submodules(package: str) -> Iterator[str]:
    path = getattr(importlib.import_module(package), "__path__", None)
    if path is None:
        return
    found = {module.name: module.ispkg for module in pkgutil.iter_modules(path)}
    found |= dict.fromkeys(_folders_without_init(path), True)
    for name, is_package in sorted(found.items()):
        if not _is_module_name(name):
            continue
        yield f"{package}.{name}"
        if is_package:
            _import(f"{package}.{name}")
            yield from _submodules(f"{package}.{name}")


def _is_module_name(name: str) -> bool:
    """Return True unless it is a file that nobody imports: a program, or a script such as `drop-all.py`."""
    return name.isidentifier() and not keyword.iskeyword(name) and name != "__main__"


def _folders_without_init(path: Iterable[str]) -> Iterator[str]:
    """Give the folders that Python can import though they have no __init__.py: their tasks count as well."""
    for entry in path:
        for folder in Path(entry).glob("*/"):
            if _is_module_name(folder.name) and not (folder / "__init__.py").exists() and any(folder.glob("*.py")):
                yield folder.name


def _not_found_message(module: str) -> str:
    if "/" in module or module.endswith(".py"):
        dotted = ".".join(part for part in module.removesuffix(".py").split("/") if part not in ("", ".", ".."))
        return f"{module!r} is a path: give the module's dotted name, {dotted!r}"
    if ":" in module:
        return f"{module!r} names something in a module: give the module alone, {module.partition(':')[0]!r}"
    return (
        f"there is no module {module!r} here: install its package in this environment, "
        "or start the worker in the folder that holds it"
    )


def _import_failed_message(module: str) -> str:
    return f"cannot import {module}, so no task was taken:\n\n{traceback.format_exc().rstrip()}"
