"""Applications: on whose behalf a task runs, and who may read its status."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from limetask.errors import ApplicationError, SoftTimeLimitExceeded
from limetask.foreign import error_text, shortened, type_name

MAX_IDENTIFIER_BYTES = 255


@runtime_checkable
class Identified(Protocol):
    """Whatever has the identifier of an application: the platform's own application object, say."""

    @property
    def identifier(self) -> str: ...


AnyApplication = Identified | str
"""An application object, or just its name."""


@dataclass(frozen=True, slots=True)
class Application:
    """The application that a task gets unless LIMETASK_APPLICATION_FACTORY makes another."""

    identifier: str


def identifier_of(app: object) -> str:
    """Return the identifier of an application object, or the name itself.

    Raises ApplicationError if there is none, if it cannot be read, or if it is empty, over 255 bytes or not printable.
    """
    identifier = app if type(app) is str else _identifier_in(app)
    if not isinstance(identifier, str):
        raise ApplicationError(
            f"an application is a name or an object with a text `identifier`, and {shortened(app)} is neither"
        )
    if not identifier or not identifier.isprintable() or identifier != identifier.strip():
        raise ApplicationError(f"{identifier!r} is no application's identifier: it must be printable text")
    if len(identifier.encode()) > MAX_IDENTIFIER_BYTES:
        raise ApplicationError(f"the application's identifier is longer than {MAX_IDENTIFIER_BYTES} bytes")
    return identifier


def _identifier_in(app: object) -> object:
    """Return the identifier of what is not plain text: the code of an application's own may raise anything."""
    try:
        identifier = app if isinstance(app, str) else getattr(app, "identifier", None)
        if isinstance(identifier, str):  # of a subclass, or what says that it is one, as lazy objects do
            return str.__str__(identifier) if issubclass(type(identifier), str) else str(identifier)
    except SoftTimeLimitExceeded:  # of the task that sends
        raise
    except Exception as exc:
        raise ApplicationError(
            f"the identifier of the application (a {type_name(app)}) cannot be read: it raises {error_text(exc)}"
        ) from exc
    return None
