"""Declaring what a worker's processes call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from limetask import DeclarationError, hooks, worker_process_started, worker_process_stopping
from limetask.hooks import started_hooks, stopping_hooks

decorators = pytest.mark.parametrize("decorator", [worker_process_started, worker_process_stopping])


@pytest.fixture(autouse=True)
def _no_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "_started", [])
    monkeypatch.setattr(hooks, "_stopping", [])


def connect() -> None:
    """Do nothing."""


def close(wait: bool = False) -> None:
    """Do nothing."""


def test_what_is_opened_last_is_closed_first() -> None:
    """Hooks for the start are called in the order of their declaration, those for the end in the opposite one."""
    for function in (connect, close):
        assert worker_process_started(function) is function
        assert worker_process_stopping(function) is function
    assert list(started_hooks()) == [connect, close]
    assert list(stopping_hooks()) == [close, connect]


@decorators
def test_a_function_declared_twice_is_called_once(decorator: Callable[[Any], Any]) -> None:
    """The same function again, under two names for example, is one hook."""
    decorator(decorator(connect))
    assert len(started_hooks()) + len(stopping_hooks()) == 1


async def coroutine() -> None:
    """Do nothing."""


def generator() -> Iterator[None]:
    yield


async def asynchronous_generator() -> AsyncIterator[None]:
    yield


def with_argument(worker: str) -> None:
    """Do nothing."""


@decorators
@pytest.mark.parametrize(
    ("function", "told"),
    [
        (coroutine, "coroutine: a hook is called where no asyncio loop runs"),
        (generator, "nor a generator"),
        (asynchronous_generator, "nor a generator"),
        (with_argument, "without arguments, and missing a required argument: 'worker'"),
        ("connect", "'connect' is not one"),
    ],
)
def test_what_cannot_be_a_hook_is_refused(decorator: Callable[[Any], Any], function: Any, told: str) -> None:
    """What could not be called, or would do nothing when it is, is an error where it is declared."""
    with pytest.raises(DeclarationError) as caught:
        decorator(function)
    assert told in str(caught.value)
    assert f"@{decorator.__name__}" in str(caught.value)
    assert not started_hooks() + stopping_hooks()  # type: ignore[operator]
