"""What things are called in Celery, for the errors that who comes from there gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, TypeVar

_SEND = "send it with `task.send(app, ...)`, where `app` is the application that it runs for"
_NO_CANVAS = "limetask has no groups and chains: `task.prepare(app, ...)` returns a call for `limetask.send_tasks`"
OF_TASKS = {
    "delay": _SEND,
    "apply_async": _SEND,
    "apply": "call it as a function to run it here, or " + _SEND,
    "s": _NO_CANVAS,
    "si": _NO_CANVAS,
    "signature": _NO_CANVAS,
    "map": _NO_CANVAS,
    "starmap": _NO_CANVAS,
    "chunks": _NO_CANVAS,
    "retry": "limetask does not retry a failed task: catch the error in the body, or send the task again",
    "request": "a body gets its application, as the first argument, and nothing of the message",
}
"""What to do instead of using these attributes of Celery's tasks."""

_LOOK = "look at `status.status`, which `status.refresh()` and `status.wait(timeout)` read anew"
OF_STATUSES = {
    "get": "`status.wait(timeout=10).result` waits for it",
    "ready": "call `is_completed()`, after `refresh()`",
    "successful": _LOOK,
    "failed": _LOOK,
    "state": _LOOK,
    "info": "it is `result`, or `error` of a task that failed",
    "traceback": "it is `error.traceback`",
    "task_id": "it is `id`",
    "name": "it is `task_name`",
    "date_done": "it is `finished_at`",
    "revoke": "limetask takes no task back that was sent",
    "forget": "statuses expire by themselves, after LIMETASK_RETENTION_DAYS",
}
"""What to do instead of using these attributes of Celery's results."""


Advised = TypeVar("Advised")


def advising(advice: dict[str, str]) -> Callable[[type[Advised]], type[Advised]]:
    """Have objects of a class say what to do instead of using these attributes, which they do not have.

    With a `__getattr__` for that, Python 3.11 would take several times as long to read every other attribute.
    """

    def decorate(kind: type[Advised]) -> type[Advised]:
        for name, instead in advice.items():
            setattr(kind, name, _Missing(name, instead))
        kind.__dir__ = lambda self: [name for name in object.__dir__(self) if name not in advice]  # type: ignore[method-assign]
        return kind

    return decorate


class _Missing:
    """An attribute that is not there."""

    def __init__(self, name: str, instead: str) -> None:
        self._name = name
        self._instead = instead

    def __get__(self, owner: object, kind: type) -> NoReturn:
        raise AttributeError(
            f"a {kind.__name__} has no attribute {self._name!r}: {self._instead}", name=self._name, obj=owner or kind
        )
