"""Which events somebody wants: a topic pattern for the broker, and what it cannot express besides."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from limetask.errors import EventPatternError, TaskNameError
from limetask.registry import TaskDeclaration, check_task_name
from limetask.status import Status
from limetask.topology import MAX_KEY_BYTES

COMPLETION_PREFIX = "core.task"

# core, task, at least two of the task's name, its status, v1
_WORDS_OF_A_COMPLETION = 6
_ENDS = [[*COMPLETION_PREFIX.split("."), "*", "*", "#", status, "v1"] for status in ("success", "failure")]
_STATUS_WORDS = {
    "failure": ("failure", "failures", "failed", "fail", "fails", "error", "errors"),
    "success": ("success", "successes", "successful", "succeeded", "succeed", "succeeds", "ok", "done"),
}
_VERSION = re.compile(r"[vV]?\d+")
_SHELL_PART = re.compile(r"\[(?:!.|[^!])[^\]]*\]|.")
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
    _check_fits_an_end(binding)


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
    if "[" in _SHELL_PART.findall(pattern):
        raise EventPatternError(
            f"{pattern!r} has a [ that is not closed: [ab] stands for one of these characters, and [[] for a [ itself"
        )
    if ".." in pattern or pattern[0] == "." or pattern[-1] == ".":
        raise EventPatternError(f"{pattern!r} fits no task: there is a dot too many")
    if not _fits_some_name(pattern):
        raise EventPatternError(
            f"{pattern!r} fits no task: a task's name is two words or more, joined by dots. Write 'my_package.tasks.*'"
        )


def _fits_some_name(pattern: str) -> bool:
    """Return True if a shell pattern fits words that are joined by dots, whatever the words are."""
    states = {("", False)}  # what was last, a "." or a letter "x", and whether there was a dot
    for part in _SHELL_PART.findall(pattern):
        reached = _after(states, _possible(part))
        if part == "*":  # within three characters every state is reached that can be
            reached |= states | _after(reached, ".x") | _after(_after(reached, ".x"), ".x")
        states = reached
    return ("x", True) in states


def _after(states: set[tuple[str, bool]], possible: str) -> set[tuple[str, bool]]:
    letters = {("x", has_dot) for _, has_dot in states} if "x" in possible else set()
    dots = {(".", True) for last, _ in states if last == "x"} if "." in possible else set()
    return letters | dots


def _possible(part: str) -> str:
    """Return which of a dot and a letter (as "x") one part of a shell pattern stands for."""
    letters = string.ascii_letters + string.digits + "_-" + part.replace(".", "")
    has_letter = any(fnmatchcase(letter, part) for letter in letters)
    return ("." if fnmatchcase(".", part) else "") + ("x" if has_letter else "")


def _check_has_room_for_a_task_name(binding: str) -> None:
    words = binding.split(".")
    is_end = words[:2] == COMPLETION_PREFIX.split(".") and (len(words) == 2 or words[-2] in _STATUS_WORDS)
    if is_end and "#" not in words and len(words) < _WORDS_OF_A_COMPLETION:
        raise EventPatternError(
            f"event pattern {binding!r} would never fit: a task's name has more than one word, and '*' stands for one. "
            "Write '#' for the name, as in 'core.task.#.failure.v1'"
        )


def _check_fits_an_end(binding: str) -> None:
    """Raise EventPatternError for what only ends of tasks could fit, and none does: its ending is misspelt, say."""
    words = binding.split(".")
    if words[:2] != COMPLETION_PREFIX.split(".") or any(_overlap(words, end) for end in _ENDS):
        return
    raise EventPatternError(
        f"event pattern {binding!r} would never fit: ends of tasks are the only events that begin with "
        f"{COMPLETION_PREFIX!r}, and they are published as 'core.task.{{task_name}}.success.v1' or '.failure.v1'. "
        f"Write {_meant(words[2:])!r}"
    )


def _overlap(one: Sequence[str], other: Sequence[str]) -> bool:
    """Return True if some routing key fits both patterns."""
    fitting = {(0, 0)}
    waiting = [(0, 0)]
    while waiting:
        at, at_other = waiting.pop()
        word, word_other = (*one, "")[at], (*other, "")[at_other]
        steps: list[tuple[int, int]] = []
        if word and "#" in (word, word_other):
            steps.append((at + 1, at_other))
        if word_other and "#" in (word, word_other):
            steps.append((at, at_other + 1))
        if word and word_other and (word == word_other or "*" in (word, word_other)):
            steps.append((at + 1, at_other + 1))
        waiting += [step for step in steps if step not in fitting]
        fitting.update(steps)
    return (len(one), len(other)) in fitting


def _meant(words: Sequence[str]) -> str:
    """Return the pattern that was probably meant by what stands behind the prefix."""
    name = list(words)
    if name and _VERSION.fullmatch(name[-1]):
        name.pop()
    status = next((status for status, forms in _STATUS_WORDS.items() if name and name[-1].lower() in forms), None)
    if status:
        name.pop()
    elif "#" in name:
        name = name[: name.index("#") + 1]
    if len(name) < 2 and "#" not in name:
        name = ["#", *(word for word in name if word != "*")]
    return ".".join([COMPLETION_PREFIX, *name, status or "failure", "v1"])


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
