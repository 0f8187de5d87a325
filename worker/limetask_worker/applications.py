"""Makes the application that a task runs for, with the platform's own factory."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from limetask.application import Application
from limetask.errors import ConfigurationError

ApplicationFactory = Callable[[str], Any]
"""Gets an identifier and returns an application, or a context manager that gives one and is closed after the run."""


def load_application_factory(path: str) -> ApplicationFactory:
    """Return the factory that `package.module:callable` names; `limetask.Application` if `path` is empty.

    Raises ConfigurationError if there is no such callable. What the module itself raises passes through.
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
    return factory  # type: ignore[no-any-return]
