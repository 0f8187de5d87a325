"""Context variables end with what has set them: nothing of one application is seen by the next one's code."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from limetask_worker.forked import end_if_forked

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class FreshContextThreads(ThreadPoolExecutor):
    """Runs each call in a context of its own, and not in that of its thread, which the next call would share.

    A process that the call forks ends where the call does: nobody would ever give its thread, the only one, work again.
    """

    def submit(
        self, function: Callable[Parameters, Result], /, *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Future[Result]:
        def run() -> Result:
            try:
                return contextvars.Context().run(function, *args, **kwargs)
            finally:
                end_if_forked()

        return super().submit(run)


async def in_thread(
    function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
) -> Result:
    """Call a function in a thread, as asyncio.to_thread does, and have the context variables that it sets here too."""
    context = contextvars.copy_context()
    result = await asyncio.to_thread(lambda: context.run(function, *args, **kwargs))
    for variable, value in context.items():
        variable.set(value)
    return result
