"""Which events somebody wants: a topic pattern for the broker, and what it cannot express besides."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache

from limetask.errors import EventPatternError
from limetask.registry import TaskDeclaration, check_task_name
from limetask.status import Status

MAX_KEY_BYTES = 255
COMPLETION_PREFIX = "core.task"

_SHELL_WILDCARD = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class EventPattern:
    """Events whose routing key fits `binding`, and whose task's whole name fits the shell pattern `task_names`.

    In `binding`, as AMQP has it, `*` stands for one word and `#` for any number of words. Raises EventPatternError
    for a binding that the broker would refuse, or that could never fit.
    """

    binding: str
    task_names: str | None = None

    def __post_init__(self) -> None:
        check_binding(self.binding)

    def fits(self, routing_key: str, task_name: str | None) -> bool:
        """Return True for an event with this routing key, of this task (None for one that is not of a task)."""
        if not _expression(self.binding).fullmatch(f".{routing_key}"):
            return False
        return self.task_names is None or (task_name is not None and fnmatchcase(task_name, self.task_names))


def on_failure(task: str | TaskDeclaration = "*") -> EventPattern:
    """Return the pattern of the failures of a task, or of all tasks whose name fits a shell pattern.

    In a shell pattern `*` stands for anything, dots too: `on_failure("my_package.tasks.*")`. Raises EventPatternError
    for what no task's name can fit.
    """
    return _on_end(task, Status.FAILURE)


def on_success(task: str | TaskDeclaration = "*") -> EventPattern:
    """Return the pattern of the successes of a task, or of all tasks whose name fits a shell pattern.

    See `on_failure`.
    """
    return _on_end(task, Status.SUCCESS)


def check_binding(binding: object) -> None:
    """Raise EventPatternError unless this is a topic pattern: words joined by dots, `*` and `#` as words alone."""
    if not isinstance(binding, str) or not binding:
        raise EventPatternError(
            f"{binding!r} is no event pattern: it must be text such as 'core.task.#.failure.v1', or on_failure(...)"
        )
    _check_length(binding)
    for word in binding.split("."):
        if not word:
            raise EventPatternError(f"event pattern {binding!r} has an empty word: is there a dot too many?")
        if word not in ("*", "#") and ("*" in word or "#" in word):
            raise EventPatternError(
                f"event pattern {binding!r}: '*' stands for one whole word and '#' for any number of them, so "
                f"{word!r} would never fit. For parts of a task's name use on_failure('my_package.tasks.*')"
            )


def _on_end(task: str | TaskDeclaration, status: Status) -> EventPattern:
    name = task.name if isinstance(task, TaskDeclaration) else task
    if not isinstance(name, str) or not name:
        raise EventPatternError(f"{name!r} is neither a task nor a shell pattern of task names")
    ending = f"{status.value.lower()}.v1"
    if not _SHELL_WILDCARD.search(name):
        check_task_name(name)
        return EventPattern(f"{COMPLETION_PREFIX}.{name}.{ending}")
    if "#" in name or any(not character.isprintable() or character.isspace() for character in name):
        raise EventPatternError(f"{name!r} fits no task: the wildcards of a shell pattern are *, ? and [...]")
    known_words = _SHELL_WILDCARD.split(name)[0].split(".")[:-1]
    widest = ".".join([COMPLETION_PREFIX, *known_words, "#", ending])
    return EventPattern(widest, None if name == "*" else name)


def _check_length(binding: str) -> None:
    length = len(binding.encode("utf-8", "replace"))
    if length > MAX_KEY_BYTES:
        raise EventPatternError(f"event pattern {binding[:40]!r}... has {length} bytes and may have {MAX_KEY_BYTES}")


@lru_cache(maxsize=1000)
def _expression(binding: str) -> re.Pattern[str]:
    """Return a topic pattern as a regular expression for a routing key with a dot before its first word too."""
    words = {"*": r"\.[^.]*", "#": r"(?:\.[^.]*)*"}
    whole = "".join(words.get(word, rf"\.{re.escape(word)}") for word in binding.split("."))
    return re.compile(rf"(?s){whole}")
