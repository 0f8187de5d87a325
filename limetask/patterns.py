"""Which events somebody wants: a topic pattern for the broker, and what it cannot express besides."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from limetask.errors import EventPatternError, TaskNameError
from limetask.registry import TaskDeclaration, check_task_name
from limetask.status import Status

MAX_KEY_BYTES = 255
COMPLETION_PREFIX = "core.task"

# core, task, at least two of the task's name, its status, v1
_WORDS_OF_A_COMPLETION = 6
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
        if self.task_names is not None and not isinstance(self.task_names, str):
            raise EventPatternError(f"{self.task_names!r} is no shell pattern of task names: it must be text or None")

    def fits(self, routing_key: str, task_name: str | None) -> bool:
        """Return True for an event with this routing key, of this task (None for one that is not of a task)."""
        if not _routes(self.binding, routing_key):
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
    """Raise EventPatternError unless this is a topic pattern that some event can fit.

    It is words joined by dots, with `*` and `#` as words alone.
    """
    if not isinstance(binding, str) or not binding:
        raise EventPatternError(
            f"{binding!r} is no event pattern: it must be text such as 'core.task.#.failure.v1', or on_failure(...)"
        )
    _check_length(binding)
    if " " in binding or not binding.isprintable():
        raise EventPatternError(f"event pattern {binding!r} would never fit: no event has a space or the like there")
    for word in binding.split("."):
        if not word:
            raise EventPatternError(f"event pattern {binding!r} has an empty word: is there a dot too many?")
        if word not in ("*", "#") and ("*" in word or "#" in word):
            raise EventPatternError(
                f"event pattern {binding!r}: '*' stands for one whole word and '#' for any number of them, so "
                f"{word!r} would never fit. For parts of a task's name use on_failure('my_package.tasks.*')"
            )
    _check_has_room_for_a_task_name(binding)


def _on_end(task: str | TaskDeclaration, status: Status) -> EventPattern:
    ending = f"{status.value.lower()}.v1"
    if isinstance(task, TaskDeclaration):  # its name may have what is a wildcard elsewhere
        return EventPattern(f"{COMPLETION_PREFIX}.{task.name}.{ending}")
    name = task
    if not isinstance(name, str) or not name:
        raise EventPatternError(f"{name!r} is neither a task nor a shell pattern of task names")
    if not _SHELL_WILDCARD.search(name):
        _check_name_of_one(name)
        return EventPattern(f"{COMPLETION_PREFIX}.{name}.{ending}")
    _check_shell_pattern(name)
    known_words = _SHELL_WILDCARD.split(name)[0].split(".")[:-1]
    widest = ".".join([COMPLETION_PREFIX, *known_words, "#", ending])
    return EventPattern(widest, None if name == "*" else name)


def _check_name_of_one(name: str) -> None:
    try:
        check_task_name(name)
    except TaskNameError as exc:
        raise EventPatternError(f"{exc}, or a shell pattern such as 'my_package.tasks.*'") from None


def _check_shell_pattern(pattern: str) -> None:
    if "#" in pattern or " " in pattern or not pattern.isprintable():
        raise EventPatternError(f"{pattern!r} fits no task: the wildcards of a shell pattern are *, ? and [...]")
    if ".." in pattern or pattern[0] == "." or pattern[-1] == ".":
        raise EventPatternError(f"{pattern!r} fits no task: there is a dot too many")


def _check_has_room_for_a_task_name(binding: str) -> None:
    words = binding.split(".")
    if words[:2] == COMPLETION_PREFIX.split(".") and "#" not in words and len(words) < _WORDS_OF_A_COMPLETION:
        raise EventPatternError(
            f"event pattern {binding!r} would never fit: a task's name has more than one word, and '*' stands for one. "
            "Write '#' for the name, as in 'core.task.#.failure.v1'"
        )


def _check_length(binding: str) -> None:
    length = len(binding.encode("utf-8", "replace"))
    if length > MAX_KEY_BYTES:
        raise EventPatternError(f"event pattern {binding[:40]!r}... has {length} bytes and may have {MAX_KEY_BYTES}")


def _routes(binding: str, routing_key: str) -> bool:
    """Return True if the broker would route a message with this key by this binding."""
    words = routing_key.split(".") if routing_key else []
    reached = {0}  # how many of the key's words may have been taken by the pattern so far
    for wanted in binding.split("."):
        if not reached:
            return False
        if wanted == "#":
            reached = set(range(min(reached), len(words) + 1))
        else:
            reached = {taken + 1 for taken in reached if taken < len(words) and wanted in ("*", words[taken])}
    return len(words) in reached
