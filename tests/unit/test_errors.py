"""The error tree: as it is documented, all of it public, and able to travel between processes."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest

import limetask
from limetask import (
    ErrorInfo,
    LimetaskError,
    PartlySentError,
    SendError,
    SendOutcomeUnknownError,
    Status,
    TaskStatus,
    WaitTimeoutError,
    errors,
)

CLASSES: dict[str, Any] = {
    name: kind for name, kind in vars(errors).items() if inspect.isclass(kind) and kind.__module__ == errors.__name__
}
SENT = TaskStatus("id-1", Status.PENDING, app="shop")
EXAMPLES: dict[str, LimetaskError] = {
    name: kind("what happened") for name, kind in CLASSES.items() if "__init__" not in vars(kind)
}
EXAMPLES["SendOutcomeUnknownError"] = SendOutcomeUnknownError("what happened", "id-1")
EXAMPLES["WaitTimeoutError"] = WaitTimeoutError("what happened", [SENT])
EXAMPLES["PartlySentError"] = PartlySentError("what happened", [SENT], [])


def documented_tree() -> dict[str, str]:
    """Each class in the docstring of the module, with the class that it is drawn under."""
    lines = [line for line in (errors.__doc__ or "").splitlines() if line.strip()][1:]
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in lines:
        indentation = len(line) - len(line.lstrip("│├└─ "))
        name = line.lstrip("│├└─ ").split()[0]
        depth = indentation // 4
        path[depth:] = [name]
        if depth:
            parents[name] = path[depth - 1]
    return parents


def test_the_documented_tree_is_the_class_tree() -> None:
    """The tree at the head of the module holds every error class under its base, and nothing else."""
    actual = {name: kind.__bases__[0].__name__ for name, kind in CLASSES.items() if kind is not LimetaskError}
    assert documented_tree() == actual


def test_the_documented_second_bases_are_right() -> None:
    """Where the tree says `(also TimeoutError)` the class is one, and nowhere else."""
    lines = (errors.__doc__ or "").splitlines()
    marked = {line.lstrip("│├└─ ").split()[0] for line in lines if "(also TimeoutError)" in line}
    assert marked == {name for name, kind in CLASSES.items() if issubclass(kind, TimeoutError)}


@pytest.mark.parametrize("name", CLASSES)
def test_every_error_is_public(name: str) -> None:
    """Each error class can be imported from limetask and is documented."""
    assert name in limetask.__all__
    assert getattr(limetask, name) is CLASSES[name]
    assert inspect.getdoc(CLASSES[name])


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(
    "passed_on", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copied", "pickled"]
)
def test_an_error_survives_being_passed_on(name: str, passed_on: Any) -> None:
    """Copied, or pickled on its way to another process, an error keeps type, message and attributes."""
    error = EXAMPLES[name]
    received = passed_on(error)
    assert type(received) is type(error)
    assert str(received) == str(error) == "what happened"
    assert vars(received) == vars(error)


def test_an_unknown_outcome_names_the_task() -> None:
    """Whoever does not know whether a task was sent gets its id."""
    error = SendOutcomeUnknownError("what happened", "id-1")
    assert error.task_id == "id-1"
    assert isinstance(error, SendError)


def test_partly_sent_tasks_are_told_apart() -> None:
    """The error for tasks of which only some were sent holds the statuses of both kinds."""
    failed = TaskStatus("id-2", Status.PENDING, error=ErrorInfo("a", "b"))
    error = PartlySentError("what happened", (SENT,), (failed,))
    assert (error.sent, error.unconfirmed) == ([SENT], [failed])


def test_a_wait_that_ended_is_a_timeout() -> None:
    """The error of a wait can be caught as TimeoutError and as ours."""
    assert issubclass(WaitTimeoutError, TimeoutError)
    assert issubclass(WaitTimeoutError, LimetaskError)
