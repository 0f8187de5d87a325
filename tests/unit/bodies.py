"""Bodies run in a test, as functions and as coroutines."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any, NoReturn

import orjson
import pytest

from limetask import Application
from limetask_worker.executor import Executor
from limetask_worker.work import Outcome
from tests.unit.works import work_of

LIMIT = 1024 * 1024
DEADLINE = 10.0
Body = Callable[..., Any]

both_kinds = pytest.mark.parametrize("kind", ["function", "coroutine"])


def in_kind(kind: str, function: Body) -> Body:
    """The function itself, or a coroutine function that does the same."""
    if kind == "function":
        return function

    async def coroutine(app: Any, *args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0)
        return function(app, *args, **kwargs)

    return coroutine


def outcome_of(
    body: Body, *args: Any, make_application: Any = Application, max_result_bytes: int = LIMIT, **kwargs: Any
) -> Outcome:
    async def run() -> Outcome:
        executor = Executor(1, make_application, max_result_bytes)
        try:
            async with asyncio.timeout(DEADLINE):
                return await executor.run(work_of(body, *args, **kwargs))
        finally:
            executor.close()

    return asyncio.run(run())


def result_of(outcome: Outcome) -> Any:
    return orjson.loads(outcome.result or b"null")


def failing_with(error: BaseException) -> Body:
    def body(app: Any) -> NoReturn:
        raise error

    return body


def files_in(traceback: str) -> list[str]:
    return re.findall(r'^  File "(.+)", line', traceback, re.MULTILINE)
