"""Calls that block, beside an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from limetask.threads import in_thread

T = TypeVar("T")


async def blocking(function: Callable[..., T], *args: Any) -> T:
    """Call a function in a thread of the loop's default executor, or of our own when that is gone.

    It is gone when the main thread has ended, while the loop of another one may go on.
    """
    try:
        answer = asyncio.get_running_loop().run_in_executor(None, partial(function, *args))
    except RuntimeError:
        return await in_thread(function, *args)
    return await answer
