"""Tests' coroutines, each on a loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from limetask import (
    aio,
)

T = TypeVar("T")

_SECONDS = 30.0


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a test's coroutine on a loop of its own, and close the client of that loop; fail if it hangs."""

    async def within_deadline() -> T:
        try:
            async with asyncio.timeout(_SECONDS):
                return await main
        finally:
            await aio.close()

    return asyncio.run(within_deadline())


async def until(condition: Callable[[], object], what: str) -> None:
    """Return when a condition is true."""
    async with asyncio.timeout(_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)
    assert condition(), what


async def take(events: aio.Subscription[T], count: int) -> list[T]:
    """Return the next events."""
    async with asyncio.timeout(_SECONDS):
        return [await anext(events) for _ in range(count)]
