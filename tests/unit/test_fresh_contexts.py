"""What a body, a handler or an application sets in context variables is not seen by what runs after it."""

from __future__ import annotations

import asyncio
import contextlib
import decimal
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from limetask import Application, Event
from limetask.handlers import HandlerDeclaration
from limetask_worker.executor import Executor
from limetask_worker.handler_executor import HandlerExecutor
from tests.unit.bodies import DEADLINE, LIMIT, Body, both_kinds, in_kind, result_of
from tests.unit.works import work_of

pytestmark = pytest.mark.usefixtures("coroutine_loops")

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


def results_of(*runs: Body, make_application: Any = Application) -> list[Any]:
    """Run bodies one after the other, in the same thread, and return their results."""

    async def run() -> list[Any]:
        executor = Executor(1, make_application, LIMIT)
        try:
            async with asyncio.timeout(DEADLINE):
                return [result_of(await executor.run(work_of(body))) for body in runs]
        finally:
            executor.close()

    return asyncio.run(run())


def set_tenant(app: Any) -> str:
    seen = tenant.get()
    tenant.set("acme")
    return seen


def set_precision(app: Any) -> int:
    seen = decimal.getcontext().prec
    decimal.getcontext().prec = 3
    return seen


async def set_in_executor(app: Any) -> str:
    return await asyncio.get_running_loop().run_in_executor(None, set_tenant, app)


@both_kinds
@pytest.mark.parametrize(("body", "seen"), [(set_tenant, "nobody"), (set_precision, 28)])
def test_a_body_does_not_see_what_another_has_set(kind: str, body: Body, seen: object) -> None:
    """A context variable, and the precision of decimals, which is one, begin anew with each body."""
    assert results_of(*[in_kind(kind, body)] * 3) == [seen] * 3


@both_kinds
def test_a_body_does_not_see_what_its_process_has_set(kind: str) -> None:
    """What runs before the first task, an import for example, shares no decimal context with the bodies."""
    with decimal.localcontext():
        decimal.getcontext().prec = 5
        assert results_of(in_kind(kind, set_precision)) == [28]
        assert decimal.getcontext().prec == 5


def test_a_call_in_the_loops_default_executor_does_not_see_another() -> None:
    """`run_in_executor` hands no context on, so each of its calls in a coroutine begins with a fresh one as well."""
    assert results_of(*[set_in_executor] * 40) == ["nobody"] * 40


@both_kinds
@pytest.mark.parametrize("when", ["made", "opened"])
def test_an_applications_variables_are_those_of_its_body_alone(kind: str, when: str) -> None:
    """What the factory sets is seen by the body, and by the application's end; the next application begins anew."""
    seen: list[str] = []

    def note(identifier: str) -> None:
        seen.append(tenant.get())
        tenant.set(identifier)

    @contextlib.contextmanager
    def opened(identifier: str) -> Iterator[str]:
        if when == "opened":
            note(identifier)
        yield identifier
        seen.append(tenant.get())

    def make(identifier: str) -> contextlib.AbstractContextManager[str]:
        if when == "made":
            note(identifier)
        return opened(identifier)

    body = in_kind(kind, lambda app: tenant.get())
    assert results_of(body, body, make_application=make) == ["shop", "shop"]
    assert seen == ["nobody", "shop"] * 2


@both_kinds
def test_an_event_handlers_call_does_not_see_another(kind: str) -> None:
    """Each call of a handler begins with a fresh context, its application's included."""
    seen: list[str] = []

    def make(identifier: str) -> str:
        seen.append(tenant.get())
        tenant.set(identifier)
        return identifier

    def handle(app: str, event: Event) -> None:
        seen.append(tenant.get())
        tenant.set("handled")

    asyncio.run(handle_twice(HandlerDeclaration(in_kind(kind, handle), ["shop.*"], name="pkg.handle"), make))
    assert seen == ["nobody", "shop"] * 2


async def handle_twice(handler: HandlerDeclaration, make: Callable[[str], Any]) -> None:
    executor = HandlerExecutor(handler, make)
    event = Event("an-id", "shop.paid", "shop")
    try:
        async with asyncio.timeout(DEADLINE):
            assert [await executor.run(event) for _ in range(2)] == [None, None]
    finally:
        executor.close()
