"""Bodies of tasks, run for real: which application they get, and what becomes of it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from limetask import Status, UnknownApplicationError
from tests.unit.bodies import both_kinds, failing_with, files_in, in_kind, outcome_of, result_of

pytestmark = pytest.mark.usefixtures("coroutine_loops")


@dataclass
class Shop:
    """An application that notes how it is used; as a context manager it gives itself."""

    identifier: str
    log: list[str] = field(default_factory=list)


class TestApplication:
    @both_kinds
    def test_the_factory_gets_the_identifier(self, kind: str) -> None:
        """The application is what the factory makes of the task's application, anew for each task."""
        made: list[Shop] = []

        def make(identifier: str) -> Shop:
            made.append(Shop(identifier))
            return made[-1]

        def body(app: Shop) -> bool:
            return app is made[-1]

        for number in (1, 2):
            assert result_of(outcome_of(in_kind(kind, body), make_application=make)) is True
            assert [shop.identifier for shop in made] == ["shop"] * number

    @both_kinds
    @pytest.mark.parametrize("ending", ["success", "failure", "result error"])
    def test_a_context_manager_is_closed_after_the_body(self, kind: str, ending: str) -> None:
        """An application that is a context manager is entered, and closed whatever the end is."""
        log: list[str] = []

        @contextlib.contextmanager
        def make(identifier: str) -> Iterator[str]:
            log.append("open")
            try:
                yield f"the {identifier}"
            finally:
                log.append("close")

        def body(app: str) -> Any:
            log.append(app)
            if ending == "failure":
                raise ValueError("no")
            return {1, 2} if ending == "result error" else None

        outcome = outcome_of(in_kind(kind, body), make_application=make)
        assert outcome.status is (Status.SUCCESS if ending == "success" else Status.FAILURE)
        assert log == ["open", "the shop", "close"]

    @pytest.mark.parametrize("ending", ["success", "failure"])
    def test_an_async_context_manager_is_closed_after_the_body(self, ending: str) -> None:
        """An application that is an async context manager serves coroutines, and is closed whatever the end is."""
        log: list[str] = []

        @contextlib.asynccontextmanager
        async def make(identifier: str) -> AsyncIterator[str]:
            log.append("open")
            try:
                yield f"the {identifier}"
            finally:
                await asyncio.sleep(0)
                log.append("close")

        async def body(app: str) -> None:
            log.append(app)
            if ending == "failure":
                raise ValueError("no")

        outcome = outcome_of(body, make_application=make)
        assert outcome.status is (Status.SUCCESS if ending == "success" else Status.FAILURE)
        assert log == ["open", "the shop", "close"]

    @both_kinds
    def test_the_context_manager_sees_the_failure(self, kind: str) -> None:
        """A context manager is closed with the body's exception, so that it can roll back."""
        seen: list[BaseException] = []

        @contextlib.contextmanager
        def make(identifier: str) -> Iterator[str]:
            try:
                yield identifier
            except ValueError as exc:
                seen.append(exc)
                raise

        error = ValueError("no")
        outcome_of(in_kind(kind, failing_with(error)), make_application=make)
        assert seen == [error]

    @both_kinds
    def test_a_failure_to_close_is_a_failure(self, kind: str) -> None:
        """If closing the application fails, a commit say, the task has failed, though its body has not."""

        @contextlib.contextmanager
        def make(identifier: str) -> Iterator[str]:
            yield identifier
            raise ValueError("cannot commit")

        outcome = outcome_of(in_kind(kind, lambda app: 3), make_application=make)
        assert (outcome.status, outcome.result) == (Status.FAILURE, None)
        assert outcome.error is not None
        assert outcome.error.message == "cannot commit"

    @both_kinds
    def test_an_unknown_application_is_a_refusal(self, kind: str) -> None:
        """A factory that knows no such application has the task set aside: it was not run."""
        ran: list[Any] = []

        def make(identifier: str) -> Any:
            raise UnknownApplicationError(f"no application {identifier!r}")

        outcome = outcome_of(in_kind(kind, lambda app: ran.append(app)), make_application=make)
        assert (outcome.status, outcome.result) == (Status.FAILURE, None)
        assert outcome.error is not None
        assert outcome.error.type == "UnknownApplicationError"
        assert outcome.refusal is not None
        assert "no application 'shop'" in outcome.refusal
        assert not ran

    @both_kinds
    def test_an_unknown_application_in_the_body_is_a_failure(self, kind: str) -> None:
        """A body that asks for another application, which there is not, has run and failed: that is no refusal."""
        outcome = outcome_of(in_kind(kind, failing_with(UnknownApplicationError("no application 'other'"))))
        assert outcome.status is Status.FAILURE
        assert outcome.refusal is None

    @both_kinds
    def test_a_factory_that_fails_is_a_failure(self, kind: str) -> None:
        """Any other exception of the factory is the task's failure, with a traceback that begins in the factory."""
        ran: list[Any] = []

        def make(identifier: str) -> Any:
            raise ValueError("the database is down")

        outcome = outcome_of(in_kind(kind, lambda app: ran.append(app)), make_application=make)
        assert (outcome.status, outcome.refusal, ran) == (Status.FAILURE, None, [])
        assert outcome.error is not None
        assert (outcome.error.type, outcome.error.message) == ("ValueError", "the database is down")
        assert files_in(outcome.error.traceback)[0] == __file__

    @both_kinds
    def test_a_factory_does_not_block_the_loop_of_the_coroutines(self, kind: str) -> None:
        """A factory, which may take its time, runs neither on the broker's loop nor on that of the coroutine bodies."""
        threads: list[threading.Thread] = []

        def make(identifier: str) -> str:
            threads.append(threading.current_thread())
            return identifier

        outcome_of(in_kind(kind, lambda app: None), make_application=make)
        assert threads[0] is not threading.main_thread()
        assert threads[0].name != "coroutine-tasks"

    @both_kinds
    def test_a_factory_that_returns_a_generator_is_a_failure(self, kind: str) -> None:
        """As one under a decorator that hides that it yields: no body gets a generator for an application."""
        ran: list[Any] = []

        def make(identifier: str) -> Any:
            return (one for one in [identifier])

        outcome = outcome_of(in_kind(kind, lambda app: ran.append(app)), make_application=make)
        assert (outcome.status, ran) == (Status.FAILURE, [])
        assert outcome.error is not None
        assert outcome.error.message.startswith("the application factory returned a value of type generator")
