"""Bodies of tasks, run for real: where, how many at a time, and until when."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from typing import Any

import pytest

from limetask import Application, Status
from limetask_worker.executor import Executor, current_work
from limetask_worker.marks import Held, Marks, open_memory
from limetask_worker.work import Outcome
from tests.unit.bodies import DEADLINE, LIMIT, both_kinds, in_kind, outcome_of, result_of
from tests.unit.works import join_coroutine_threads, work_of

pytestmark = pytest.mark.usefixtures("coroutine_loops")


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


class TestMarks:
    @both_kinds
    @pytest.mark.parametrize("fails", [False, True])
    def test_a_body_that_has_ended_exceeds_no_time_limit(self, kind: str, fails: bool) -> None:
        """However long its end then waits for the broker, its supervisor sees no reason to kill the process."""
        descriptor = open_memory()
        marks = Marks(descriptor)
        os.close(descriptor)

        def body(app: Any) -> None:
            assert marks.read() == [Held(task_id, 1, has_begun=True, exceeded=-1.0)]
            if fails:
                raise ValueError("no")

        work = work_of(in_kind(kind, body))
        task_id = work.message.identity.task_id
        work.mark, work.time_limit = marks.hold(task_id, 1), -1.0

        async def run() -> Outcome:
            executor = Executor(1, Application, LIMIT)
            try:
                return await executor.run(work)
            finally:
                executor.close()

        outcome = asyncio.run(run())
        assert (outcome.status, outcome.error and outcome.error.type) == (
            (Status.FAILURE, "ValueError") if fails else (Status.SUCCESS, None)
        )
        assert marks.read() == [Held(task_id, 1, has_begun=True)]
