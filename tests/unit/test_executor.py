"""Bodies of tasks, run for real: what becomes of their results and errors."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from limetask import Application, Status, TaskFailure
from limetask.message import Completion
from limetask.records import decode_completion, encode_completion
from tests.unit import bodies
from tests.unit.bodies import both_kinds, failing_with, files_in, in_kind, outcome_of, result_of
from tests.unit.works import work_of

pytestmark = pytest.mark.usefixtures("coroutine_loops")


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise ValueError("not even this")


class ExitingError(Exception):
    def __str__(self) -> str:
        sys.exit(3)


class StrangeTextError(Exception):
    def __str__(self) -> str:
        return 3  # type: ignore[return-value]


class TestSuccess:
    @both_kinds
    def test_what_the_body_returns_is_the_result(self, kind: str) -> None:
        """A body gets the application and its arguments, and what it returns is the result, as JSON has it."""

        def body(app: Application, number: int, *, price: Decimal) -> dict[str, Any]:
            return {"for": app.identifier, "number": number, "price": price}

        before = datetime.now(UTC)
        outcome = outcome_of(in_kind(kind, body), 3, price=Decimal("1.50"))
        assert (outcome.status, outcome.error, outcome.refusal) == (Status.SUCCESS, None, None)
        assert result_of(outcome) == {"for": "shop", "number": 3, "price": "1.50"}
        assert before <= outcome.finished_at <= datetime.now(UTC)

    @both_kinds
    def test_a_body_that_returns_nothing_succeeds_with_none(self, kind: str) -> None:
        """Without a `return` the result is None."""
        outcome = outcome_of(in_kind(kind, lambda app: None))
        assert (outcome.status, result_of(outcome)) == (Status.SUCCESS, None)


class TestFailure:
    @both_kinds
    def test_a_task_failure_is_a_failure_with_its_message_as_result(self, kind: str) -> None:
        """Who raises TaskFailure decides what the result says; there is no traceback."""
        outcome = outcome_of(in_kind(kind, failing_with(TaskFailure("out of stock"))))
        assert (outcome.status, outcome.result, outcome.refusal) == (Status.FAILURE, b'"out of stock"', None)
        assert outcome.error is not None
        assert (outcome.error.type, outcome.error.message, outcome.error.traceback) == (
            "TaskFailure",
            "out of stock",
            "",
        )

    @both_kinds
    def test_a_subclass_of_task_failure_is_one(self, kind: str) -> None:
        """A platform's own subclass of TaskFailure does the same."""

        class OutOfStock(TaskFailure):
            pass

        outcome = outcome_of(in_kind(kind, failing_with(OutOfStock("no pens"))))
        assert (outcome.status, outcome.result) == (Status.FAILURE, b'"no pens"')

    @both_kinds
    def test_an_exception_is_a_failure_with_its_traceback(self, kind: str) -> None:
        """Any exception is a failure without a result, with the exception's type, message and traceback."""
        outcome = outcome_of(in_kind(kind, failing_with(ValueError("no such article"))))
        assert (outcome.status, outcome.result, outcome.refusal) == (Status.FAILURE, None, None)
        assert outcome.error is not None
        assert (outcome.error.type, outcome.error.message) == ("ValueError", "no such article")
        assert outcome.error.traceback.startswith("Traceback (most recent call last):\n")
        assert "raise error" in outcome.error.traceback
        assert outcome.error.traceback.endswith("ValueError: no such article\n")

    @both_kinds
    def test_the_traceback_begins_in_the_users_code(self, kind: str) -> None:
        """The first frame of a traceback is the body's, and none is limetask's."""
        error = outcome_of(in_kind(kind, failing_with(ValueError("no")))).error
        assert error is not None
        assert files_in(error.traceback)[0] == bodies.__file__
        assert "limetask_worker" not in error.traceback

    @both_kinds
    def test_an_exception_of_a_module_is_named_with_it(self, kind: str) -> None:
        """The type of an exception that is not built in comes with its module."""
        error = outcome_of(in_kind(kind, failing_with(asyncio.QueueEmpty("no")))).error
        assert error is not None
        assert error.type == "asyncio.queues.QueueEmpty"

    @both_kinds
    def test_a_chain_of_causes_is_in_the_traceback(self, kind: str) -> None:
        """What an exception was raised from is shown as well."""

        def body(app: Any) -> None:
            try:
                {"pen": 1}["article"]
            except KeyError as exc:
                raise ValueError("no such article") from exc

        error = outcome_of(in_kind(kind, body)).error
        assert error is not None
        assert "KeyError: 'article'" in error.traceback
        assert "direct cause" in error.traceback

    @both_kinds
    @pytest.mark.parametrize(
        ("error", "name"),
        [
            (SystemExit(3), "SystemExit"),
            (KeyboardInterrupt(), "KeyboardInterrupt"),
            (GeneratorExit(), "GeneratorExit"),
            (asyncio.CancelledError(), "asyncio.exceptions.CancelledError"),
            (RecursionError("too deep"), "RecursionError"),
            (MemoryError(), "MemoryError"),
            (ExceptionGroup("two", [ValueError("one"), TypeError("other")]), "ExceptionGroup"),
        ],
        ids=lambda value: None if isinstance(value, str) else type(value).__name__,
    )
    def test_whatever_is_raised_ends_the_task_only(self, kind: str, error: BaseException, name: str) -> None:
        """sys.exit(), Ctrl-C, cancellation and all that are failures of the one task that raised them."""
        outcome = outcome_of(in_kind(kind, failing_with(error)))
        assert outcome.status is Status.FAILURE
        assert outcome.error is not None
        assert outcome.error.type == name

    def test_a_coroutine_that_cancels_itself_fails(self) -> None:
        """A coroutine body whose own asyncio task is cancelled is a failure, and not the end of its future."""

        async def body(app: Any) -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.Event().wait()

        error = outcome_of(body).error
        assert error is not None
        assert error.type == "asyncio.exceptions.CancelledError"

    @both_kinds
    @pytest.mark.parametrize("error", [UnprintableError(), StrangeTextError()], ids=lambda error: type(error).__name__)
    def test_an_exception_without_a_text_is_a_failure(self, kind: str, error: Exception) -> None:
        """An exception whose `__str__` raises, or gives no text, is a failure that says so."""
        outcome = outcome_of(in_kind(kind, failing_with(error)))
        assert outcome.status is Status.FAILURE
        assert outcome.error is not None
        assert outcome.error.type == f"{__name__}.{type(error).__name__}"
        assert "cannot be shown" in outcome.error.message

    def test_an_exception_whose_text_exits_is_a_failure(self) -> None:
        """An exception whose `__str__` calls sys.exit() is a failure like any other."""
        outcome = outcome_of(failing_with(ExitingError()))
        assert outcome.status is Status.FAILURE
        assert outcome.error is not None
        assert outcome.error.type == f"{__name__}.ExitingError"

    @pytest.mark.parametrize(
        "body",
        [
            "async def body(app): await asyncio.gather(helper())",
            "async def body(app): asyncio.get_running_loop().call_soon(sys.exit, 3); await asyncio.sleep(0)",
            "async def body(app): raise ExitingError()",
        ],
        ids=["in another asyncio task", "in a callback", "in a text"],
    )
    def test_exiting_beside_a_coroutine_does_not_stop_the_others(self, body: str) -> None:
        """sys.exit() in what a coroutine body has started does not take the loop away from the other bodies."""
        program = f"""
            import asyncio, sys
            from limetask import Application
            from limetask_worker.executor import Executor
            from tests.unit.works import join_coroutine_threads, work_of

            class ExitingError(Exception):
                def __str__(self):
                    sys.exit(3)

            async def helper(): sys.exit(3)
            {body}
            async def other(app): return "done"

            async def main():
                executor = Executor(1, Application, 1000)
                async with asyncio.timeout(2):
                    first = await executor.run(work_of(body))
                    second = await executor.run(work_of(other))
                print(first.status in ("SUCCESS", "FAILURE"), second.status)

            asyncio.run(main())
        """
        ran = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False
        )
        assert (ran.returncode, ran.stdout) == (0, "True SUCCESS\n"), ran.stderr

    @both_kinds
    def test_a_huge_message_is_shortened(self, kind: str) -> None:
        """Of an endless message beginning and end are kept, and it is told how much is missing."""
        error = outcome_of(in_kind(kind, failing_with(ValueError("begin" + "x" * 1_000_000 + "end")))).error
        assert error is not None
        assert len(error.message) < 11_000
        assert error.message.startswith("beginxxx")
        assert error.message.endswith("xxxend")
        assert "characters left out" in error.message
        assert len(error.traceback) < 51_000
        assert error.traceback.endswith("xxxend\n")

    @both_kinds
    def test_a_huge_task_failure_is_shortened_too(self, kind: str) -> None:
        """The result of a TaskFailure with an endless message is not endless."""
        outcome = outcome_of(in_kind(kind, failing_with(TaskFailure("x" * 1_000_000))))
        assert len(outcome.result or b"") < 11_000

    @both_kinds
    @pytest.mark.parametrize(
        "error", [ValueError("\udcff"), TaskFailure("\udcff")], ids=lambda error: type(error).__name__
    )
    def test_every_failure_can_be_told(self, kind: str, error: Exception) -> None:
        """A message that is no valid Unicode, as the name of a file may be, does not keep an end from being told."""
        work = work_of(lambda app: None)
        identity = work.message.identity
        outcome = outcome_of(in_kind(kind, failing_with(error)))
        now = datetime.now(UTC)
        completion = Completion(
            "event-1",
            identity.task_id,
            identity.task_name,
            identity.app,
            outcome.status,
            None,
            outcome.error,
            1,
            "worker-1",
            now,
            now,
            outcome.finished_at,
        )
        assert decode_completion(encode_completion(completion, outcome.result).body).status is Status.FAILURE

    @both_kinds
    def test_a_result_that_is_not_json_is_a_failure(self, kind: str) -> None:
        """A body that returns what JSON cannot express has failed, and the error names the type."""
        outcome = outcome_of(in_kind(kind, lambda app: {1, 2}))
        assert (outcome.status, outcome.result) == (Status.FAILURE, None)
        assert outcome.error is not None
        assert outcome.error.type == "ResultError"
        assert "set" in outcome.error.message

    @both_kinds
    def test_a_result_whose_own_code_raises_is_a_failure(self, kind: str) -> None:
        """A body may return a lazy object: what finding out its value raises is told as the result's error."""

        class Lazy(dict[str, int]):
            def items(self) -> Any:
                raise LookupError("the row is gone")

        for result in (lambda app: {(1, 2): Lazy(a=1)}, lambda app: {b"a": [Lazy(a=1)]}):
            outcome = outcome_of(in_kind(kind, result))
            assert (outcome.status, outcome.result) == (Status.FAILURE, None)
            assert outcome.error is not None
            assert outcome.error.type == "ResultError"
            assert "reading it raises LookupError: the row is gone" in outcome.error.message

    @both_kinds
    def test_a_result_that_is_too_large_is_a_failure(self, kind: str) -> None:
        """A body that returns more than the limit has failed."""
        outcome = outcome_of(in_kind(kind, lambda app: "x" * 100), max_result_bytes=100)
        assert outcome.status is Status.FAILURE
        assert outcome.error is not None
        assert (outcome.error.type, "limit is 100 bytes" in outcome.error.message) == ("ResultError", True)

    @both_kinds
    def test_arguments_that_do_not_fit_are_a_failure(self, kind: str) -> None:
        """A task that was sent with wrong arguments fails with what Python says, without frames of limetask."""

        def function(app: Any, number: int) -> None:
            pass

        async def coroutine(app: Any, number: int) -> None:
            pass

        body = function if kind == "function" else coroutine
        error = outcome_of(body, 1, 2, 3).error
        assert error is not None
        assert error.type == "TypeError"
        assert f"{kind}()" in error.message
        assert "limetask_worker" not in error.traceback
