"""What was called and has only made a coroutine or a generator, as under a decorator that hides what it wraps."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from limetask import Event
from limetask.handlers import HandlerDeclaration
from limetask_worker.handler_executor import HandlerExecutor, HandlerFailure

DEADLINE = 20.0


def plainly(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a function as one that times or logs its calls."""

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return function(*args)

    return call


async def coroutine(app: str, event: Event) -> None:
    """Do nothing."""


def generator(app: str, event: Event) -> Iterator[None]:
    yield


async def asynchronous_generator(app: str, event: Event) -> AsyncIterator[None]:
    yield


async def twice_asynchronous(app: str, event: Event) -> Any:
    return coroutine(app, event)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (plainly(coroutine), "a value of type coroutine,"),
        (plainly(generator), "a value of type generator,"),
        (plainly(asynchronous_generator), "a value of type async_generator,"),
        (twice_asynchronous, "a value of type coroutine,"),
    ],
    ids=["coroutine", "generator", "asynchronous generator", "coroutine of a coroutine"],
)
def test_a_handler_of_which_nothing_has_run_has_failed(function: Callable[..., Any], told: str) -> None:
    """An event that nobody has handled is not taken for a handled one."""
    failure = asyncio.run(handled(HandlerDeclaration(function, ["shop.*"], name="pkg.handle")))
    assert failure is not None
    assert told in failure.text
    assert "event handler 'pkg.handle'" in failure.text


def test_a_handler_may_return_what_runs_by_itself() -> None:
    """A task that goes on beside the handler has begun."""

    async def handle(app: str, event: Event) -> Any:
        return asyncio.ensure_future(asyncio.sleep(0))

    assert asyncio.run(handled(HandlerDeclaration(handle, ["shop.*"], name="pkg.handle"))) is None


async def handled(handler: HandlerDeclaration) -> HandlerFailure | None:
    executor = HandlerExecutor(handler, str)
    try:
        async with asyncio.timeout(DEADLINE):
            return await executor.run(Event("an-id", "shop.paid", "shop"))
    finally:
        executor.close()
