"""Bodies of tasks, run for real: what becomes of their results, errors and applications."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NoReturn

import orjson
import pytest

from limetask import Application, Status, TaskFailure, UnknownApplicationError
from limetask.message import Completion
from limetask.records import decode_completion, encode_completion
from limetask_worker.executor import Executor, current_work
from limetask_worker.work import Outcome
from tests.unit.works import join_coroutine_threads, work_of

LIMIT = 1024 * 1024
DEADLINE = 10.0
Body = Callable[..., Any]

both_kinds = pytest.mark.parametrize("kind", ["function", "coroutine"])


pytestmark = pytest.mark.usefixtures("coroutine_loops")


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
        assert files_in(error.traceback)[0] == __file__
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


class TestThreads:
    def test_bodies_run_beside_the_brokers_loop(self) -> None:
        """No body runs on the thread that called `run`; coroutines share one other thread."""

        async def run() -> list[str]:
            executor = Executor(2, Application, LIMIT)
            try:
                works = [work_of(in_kind(kind, lambda app: threading.current_thread().name)) for kind in kinds]
                return [result_of(await executor.run(work)) for work in works]
            finally:
                executor.close()

        kinds = ["function", "coroutine", "coroutine"]
        function, first, second = asyncio.run(run())
        assert threading.current_thread().name not in (function, first)
        assert function != first == second

    def test_slots_limit_the_functions_that_run_at_a_time(self) -> None:
        """As many functions as there are slots run side by side, and never more."""
        slots = 3
        together = threading.Barrier(slots)
        lock = threading.Lock()
        running: list[int] = []
        peaks: list[int] = []

        def body(app: Any, number: int) -> None:
            with lock:
                running.append(number)
                peaks.append(len(running))
            together.wait(DEADLINE)
            with lock:
                running.remove(number)

        async def run() -> list[Outcome]:
            executor = Executor(slots, Application, LIMIT)
            try:
                return await asyncio.gather(*(executor.run(work_of(body, number)) for number in range(4 * slots)))
            finally:
                executor.close()

        assert {outcome.status for outcome in asyncio.run(run())} == {Status.SUCCESS}
        assert max(peaks) == slots

    def test_coroutines_run_as_they_come(self) -> None:
        """Coroutine bodies wait for one another on one loop, however few slots there are."""
        number = 20
        together = asyncio.Barrier(number)

        async def body(app: Any) -> None:
            async with asyncio.timeout(DEADLINE):
                await together.wait()

        async def run() -> list[Outcome]:
            executor = Executor(1, Application, LIMIT)
            try:
                return await asyncio.gather(*(executor.run(work_of(body)) for _ in range(number)))
            finally:
                executor.close()

        assert {outcome.status for outcome in asyncio.run(run())} == {Status.SUCCESS}

    @both_kinds
    def test_a_body_knows_which_task_it_is(self, kind: str) -> None:
        """In a body, and in its factory, the current work is its own; outside there is none."""

        def ids_seen(app: str) -> list[str]:
            work = current_work.get()
            return [app, work.message.identity.task_id if work else ""]

        def make(identifier: str) -> str:
            work = current_work.get()
            return work.message.identity.task_id if work else ""

        async def run() -> None:
            executor = Executor(1, make, LIMIT)
            try:
                for _ in range(2):
                    work = work_of(in_kind(kind, ids_seen))
                    assert result_of(await executor.run(work)) == [work.message.identity.task_id] * 2
                    assert current_work.get() is None
            finally:
                executor.close()

        asyncio.run(run())

    def test_bodies_do_not_see_each_others_context(self) -> None:
        """A context variable that one coroutine body sets is not set in the next one."""
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

        async def body(app: Any) -> str:
            before = variable.get()
            variable.set("set")
            return before

        async def run() -> list[Any]:
            executor = Executor(1, Application, LIMIT)
            try:
                return [result_of(await executor.run(work_of(body))) for _ in range(2)]
            finally:
                executor.close()

        assert asyncio.run(run()) == ["unset", "unset"]


class TestTakingBack:
    def test_only_what_has_not_begun_is_taken_back(self) -> None:
        """Bodies that wait for a thread are taken back in their order and never run; those that run go on."""
        started, released = threading.Event(), threading.Event()
        ran: list[str] = []

        def first(app: Any) -> None:
            started.set()
            released.wait(DEADLINE)
            ran.append("first")

        async def run() -> None:
            executor = Executor(1, Application, LIMIT)
            try:
                running = executor.run(work_of(first))
                await asyncio.to_thread(started.wait, DEADLINE)
                waiting = [work_of(lambda app: ran.append("second")) for _ in range(3)]
                endings = [executor.run(work) for work in waiting]
                assert executor.longest_waiting is waiting[0]
                assert executor.take_back() == waiting
                assert executor.longest_waiting is None
                await asyncio.sleep(0)
                assert all(ending.cancelled() for ending in endings)
                later = executor.run(work_of(lambda app: ran.append("later")))
                released.set()
                await asyncio.wait_for(asyncio.gather(running, later), DEADLINE)
            finally:
                released.set()
                executor.close()

        asyncio.run(run())
        assert ran == ["first", "later"]

    def test_nothing_can_be_taken_back_from_an_unused_executor(self) -> None:
        """Where nothing has run, nothing waits."""
        executor = Executor(1, Application, LIMIT)
        assert executor.take_back() == []
        assert executor.longest_waiting is None


class TestClose:
    def test_closing_does_not_wait_for_a_body(self) -> None:
        """`close` returns though a body still runs; the body goes on."""
        started, released, ended = threading.Event(), threading.Event(), threading.Event()

        def body(app: Any) -> None:
            started.set()
            released.wait(DEADLINE)
            ended.set()

        async def run() -> None:
            executor = Executor(1, Application, LIMIT)
            ending = executor.run(work_of(body))
            await asyncio.to_thread(started.wait, DEADLINE)
            executor.close()
            assert not ended.is_set()
            released.set()
            assert (await ending).status is Status.SUCCESS

        asyncio.run(run())

    def test_closing_lets_idle_threads_go(self) -> None:
        """After `close` no thread waits for another body."""
        threads: list[threading.Thread] = []
        outcome_of(lambda app: threads.append(threading.current_thread()))
        threads[0].join(DEADLINE)
        assert not threads[0].is_alive()

    def test_closing_drops_what_has_not_begun(self) -> None:
        """A body that waits for a slot when the executor is closed is not run any more."""
        started, released = threading.Event(), threading.Event()
        threads: list[threading.Thread] = []
        ran: list[str] = []

        def first(app: Any) -> None:
            threads.append(threading.current_thread())
            started.set()
            released.wait(DEADLINE)
            ran.append("first")

        async def run() -> None:
            executor = Executor(1, Application, LIMIT)
            endings = [executor.run(work_of(first)), executor.run(work_of(lambda app: ran.append("second")))]
            await asyncio.to_thread(started.wait, DEADLINE)
            executor.close()
            released.set()
            await asyncio.wait(endings)

        asyncio.run(run())
        threads[0].join(DEADLINE)
        assert ran == ["first"]

    @pytest.mark.parametrize("times", [1, 2])
    def test_closing_an_unused_executor_is_nothing(self, times: int) -> None:
        """An executor that never ran a body can be closed, more than once."""
        executor = Executor(1, Application, LIMIT)
        for _ in range(times):
            executor.close()

    def test_closing_ends_the_coroutines_thread_and_loop(
        self, coroutine_loops: list[asyncio.AbstractEventLoop]
    ) -> None:
        """After `close` the thread of the coroutine bodies ends, and nothing of its loop is left open."""
        outcome_of(in_kind("coroutine", lambda app: None))
        join_coroutine_threads()
        assert "coroutine-tasks" not in {thread.name for thread in threading.enumerate()}
        assert [loop.is_closed() for loop in coroutine_loops] == [True]
