"""Users' functions that return what they should have run: a coroutine, or a generator."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Generator
from functools import lru_cache
from typing import Any

from limetask.errors import DeclarationError

# Not all that can be awaited: a future, or a task, goes on by itself.
_UNRUN = (Coroutine, Generator, AsyncGenerator)


@lru_cache(maxsize=256)  # applications are of few types, and there is one for each task
def _is_unrun(kind: type[Any]) -> bool:
    return issubclass(kind, _UNRUN)


def check_has_run(returned: object, what: str) -> None:
    """Raise DeclarationError if a call has returned what is still to be run. `what` was called is for the message."""
    if returned is None or not _is_unrun(type(returned)):  # type: ignore[arg-type]  # a class can be hashed
        return
    if isinstance(returned, Coroutine):
        returned.close()  # without Python's own warning
    raise DeclarationError(
        f"{what} returned a value of type {type(returned).__name__}, of which nothing has run: it must have done its "
        "work when it returns. A decorator above an `async def` function has to be `async def` itself and await it"
    )
