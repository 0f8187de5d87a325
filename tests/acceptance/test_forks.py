"""Tasks and event handlers that start processes: these hold up nobody, and do nothing in their parent's name."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from limetask import Settings, Status, TaskStatus, get_status, publish_event, send_task
from tests.broker import subscriber
from tests.waiting import eventually
from tests.worker import Worker

StartWorker = Callable[..., Worker]

WAYS = [
    "fork",
    "fork_twice",
    "process_fork",
    "process_forkserver",
    "process_spawn",
    "pool",
    "pool_executor",
    "popen",
    "popen_preexec",
    "popen_all_descriptors",
    "posix_spawn",
]
ENDS = {
    "exits with 3": 3,
    "exits with a text": 1,
    "exits": 0,
    "raises": 1,
    "raises a task's failure": 1,
    "returns": 0,
}


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def trace(tmp_path: Path) -> Iterator[Path]:
    """Where the processes that tasks start leave their ids; they are killed after the test."""
    path = tmp_path / "trace"
    yield path
    for pid in lines(path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def started(trace: Path, status: TaskStatus) -> int:
    """Wait until a task is recorded as started and its process has left its id, and return that."""
    eventually(lambda: status.refresh().status is Status.STARTED and lines(trace), what="the task's process")
    return int(lines(trace)[0])


@pytest.mark.parametrize(
    ("task", "way"),
    [
        *[("start_and_hold", way) for way in WAYS],
        *[("start_and_hold_async", way) for way in ("fork", "process_fork", "pool_executor")],
    ],
)
def test_a_killed_process_is_replaced_though_one_that_it_started_lives(
    settings: Settings, start_worker: StartWorker, trace: Path, task: str, way: str
) -> None:
    """kill -9 of the task process: its task is lost at once, and another process takes over."""
    worker = start_worker(settings, "forking", "--processes", "1")
    status = send_task(f"forking.tasks.{task}", "acme", way, str(trace))
    living = started(trace, status)
    [victim] = worker.child_pids()
    os.kill(victim, signal.SIGKILL)
    ended = status.wait(20)
    assert ended.error is not None
    assert (ended.status, ended.error.type) == (Status.FAILURE, "WorkerLost")
    assert send_task("forking.tasks.ping", "acme").wait(20).result != victim
    # Processes of a pool may notice that they are orphans, and end; what lives until it is killed does so.
    assert psutil.pid_exists(living)
    assert worker.stop() == 0


@pytest.mark.parametrize("way", ["fork", "process_fork", "pool_executor"])
def test_a_late_task_is_delivered_again_though_a_forked_process_lives(
    settings: Settings, start_worker: StartWorker, trace: Path, way: str
) -> None:
    """The broker sees at once that the connection is gone: what was forked does not hold it open."""
    worker = start_worker(settings, "forking", "--processes", "1")
    status = send_task("forking.tasks.start_and_hold_late", "acme", way, str(trace))
    started(trace, status)
    [victim] = worker.child_pids()
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: len(lines(trace)) == 2, what="the second run")
    Path(f"{trace}.release").touch()
    again = status.wait(20)
    assert (again.status, again.result != victim) == (Status.SUCCESS, True)
    assert worker.stop() == 0


@pytest.mark.parametrize("way", ["fork", "process_fork", "popen"])
def test_a_process_that_exceeded_its_time_limit_is_replaced_though_one_that_it_started_lives(
    settings: Settings, start_worker: StartWorker, trace: Path, way: str
) -> None:
    """The task is cut off, its process ends, and another one takes over."""
    worker = start_worker(settings, "forking", "--processes", "1", "--grace", "0.2")
    [victim] = worker.child_pids()
    ended = send_task("forking.tasks.start_and_exceed", "acme", way, str(trace)).wait(20)
    assert ended.error is not None
    assert ended.error.type == "TimeLimitExceeded"
    eventually(lambda: worker.child_pids() not in ([], [victim]), what="another process")
    assert send_task("forking.tasks.ping", "acme").wait(20).result != victim
    Path(f"{trace}.release").touch()


@pytest.mark.parametrize("way", ["fork", "pool", "popen"])
def test_a_recycled_process_is_replaced_though_one_that_it_started_lives(
    settings: Settings, start_worker: StartWorker, trace: Path, way: str
) -> None:
    """A process that has run enough tasks is replaced at once, whatever these left behind."""
    worker = start_worker(settings, "forking", "--processes", "1", "--max-tasks-per-child", "1")
    first = send_task("forking.tasks.start", "acme", way, str(trace)).wait(20)
    assert first.status is Status.SUCCESS
    # The next one may have been taken by the first process yet.
    eventually(lambda: send_task("forking.tasks.ping", "acme").wait(20).result != first.result, 40)
    assert worker.stop() == 0


@pytest.mark.parametrize("task", ["square", "square_async"])
def test_a_terminated_pool_ends_and_nothing_else(
    settings: Settings, start_worker: StartWorker, tmp_path: Path, task: str
) -> None:
    """SIGTERM for a pool's processes ends these, not the task process that has forked them."""
    worker = start_worker(settings, "forking", "shop", "--processes", "1")
    [process] = worker.child_pids()
    beside = send_task("shop.tasks.hold", "acme", str(tmp_path / "beside"))
    eventually(lambda: lines(tmp_path / "beside"))
    for _ in range(3):
        assert send_task(f"forking.tasks.{task}", "acme", [1, 2, 3]).wait(30).result == [1, 4, 9]
    assert psutil.Process(process).children() == []
    (tmp_path / "beside.release").touch()
    assert beside.wait(20).result == process
    assert send_task("forking.tasks.ping", "acme").wait(20).result == process


def test_a_forked_process_ends_by_sigterm_whenever_it_comes(settings: Settings, start_worker: StartWorker) -> None:
    """At once after the fork too, and its parent hears nothing of it."""
    worker = start_worker(settings, "forking", "--processes", "1")
    [process] = worker.child_pids()
    for seconds in (0.0, 0.0, 0.0, 0.05):
        ended = send_task("forking.tasks.terminate", "acme", seconds).wait(60)
        assert ended.result == [-signal.SIGTERM] * 8
    assert send_task("forking.tasks.ping", "acme").wait(20).result == process


@pytest.mark.parametrize("task", ["fork_and_wait", "fork_and_wait_async", "fork_and_wait_in_thread"])
def test_a_forked_process_that_leaves_the_body_ends(settings: Settings, start_worker: StartWorker, task: str) -> None:
    """sys.exit(), an exception and a return end the forked process, with the exit code that Python gives them."""
    worker = start_worker(settings, "forking", "--processes", "1")
    with subscriber(settings.broker_url, settings.namespace) as events:
        statuses = {end: send_task(f"forking.tasks.{task}", "acme", end) for end in ENDS}
        assert {end: status.wait(30).result for end, status in statuses.items()} == ENDS
        told = events.wait_for(len(ENDS))
        assert sorted(event["task_id"] for event in told) == sorted(status.id for status in statuses.values())
    assert "said by the forked process" in worker.log
    assert "ZeroDivisionError" in worker.log


def test_a_forked_process_cannot_await_on_its_parents_loop(settings: Settings, start_worker: StartWorker) -> None:
    """It ends, and runs no other coroutine a second time."""
    start_worker(settings, "forking", "--processes", "1")
    assert send_task("forking.tasks.fork_and_await", "acme").wait(30).result == 1


def test_a_forked_process_runs_no_other_task(settings: Settings, start_worker: StartWorker, tmp_path: Path) -> None:
    """What waits for the same thread runs once, in the task process."""
    start_worker(settings, "forking", "--processes", "1", "--slots", "1")
    path = tmp_path / "runs"
    statuses: list[TaskStatus] = []
    for number in range(40):
        if number % 10 == 5:
            statuses.append(send_task("forking.tasks.fork_and_wait", "acme", "returns"))
        statuses.append(send_task("forking.tasks.count_run", "acme", str(path), number))
    assert {status.wait(30).status for status in statuses} == {Status.SUCCESS}
    assert sorted(map(int, lines(path))) == list(range(40))


@pytest.mark.parametrize("end", ["exits with 3", "returns"])
def test_a_process_that_a_handler_forked_ends(
    settings: Settings, start_worker: StartWorker, tmp_path: Path, end: str
) -> None:
    """A forked process that leaves the handler ends, and the event is handled once, by its parent."""
    start_worker(settings, "forking", "--processes", "1")
    path = tmp_path / "code"
    publish_event("acme", "forking.ended.now", {"end": end, "path": str(path)})
    for one in (path, tmp_path / "code.async"):
        eventually(lambda one=one: lines(one) == [str(ENDS[end])], 30)  # type: ignore[misc]


def test_a_process_that_a_lone_task_forked_ends(settings: Settings, start_worker: StartWorker, tmp_path: Path) -> None:
    """The same in the process of a task that runs alone, since its worker was lost."""
    start_worker(settings, "forking", "--processes", "1")
    status = send_task("forking.tasks.fork_alone", "acme", str(tmp_path / "trace"), "exits with 3")
    assert status.wait(40).result == 3


def test_a_lone_task_ends_with_its_process_though_a_forked_one_lives(
    settings: Settings, start_worker: StartWorker, tmp_path: Path, trace: Path
) -> None:
    """The process of a lone task is killed: it begins again, whatever it has left behind."""
    start_worker(settings, "forking", "--processes", "1")
    path = tmp_path / "alone"
    status = send_task("forking.tasks.hold_alone", "acme", str(path))
    eventually(lambda: len(lines(path)) == 2, 30)
    eventually(lambda: Path(f"{path}.forked").exists())
    trace.write_text(Path(f"{path}.forked").read_text())  # so that it is killed
    os.kill(int(lines(path)[1]), signal.SIGKILL)
    eventually(lambda: len(lines(path)) == 3, 30)
    Path(f"{path}.release").touch()
    assert status.wait(20).result == int(lines(path)[2])
    trace.write_text(Path(f"{path}.forked").read_text())


@pytest.mark.parametrize("task", ["signals_of_a_program", "signals_of_a_fork"])
def test_what_a_task_starts_has_pythons_own_signals(settings: Settings, start_worker: StartWorker, task: str) -> None:
    """Ctrl-C and SIGTERM end what a task starts, as they do elsewhere; no signal is blocked."""
    start_worker(settings, "forking", "--processes", "1")
    told = send_task(f"forking.tasks.{task}", "acme").wait(30).result
    assert told.pop("blocked") == []
    assert told.pop("wakeup", -1) == -1
    assert set(told) == {"SIGINT", "SIGTERM", "SIGHUP"}
    assert all("default" in handler or handler == str(signal.SIG_DFL) for handler in told.values()), told


def test_a_forked_process_sends_tasks(settings: Settings, start_worker: StartWorker, tmp_path: Path) -> None:
    """It has a client of its own."""
    worker = start_worker(settings, "forking", "--processes", "1")
    path = tmp_path / "id"
    assert send_task("forking.tasks.send_from_a_fork", "acme", str(path)).wait(30).status is Status.SUCCESS
    assert get_status(path.read_text(), "acme").wait(20).result in worker.child_pids()


@pytest.mark.parametrize("way", ["fork", "pool_executor", "process_forkserver"])
def test_a_killed_event_process_is_replaced_though_one_that_a_handler_started_lives(
    settings: Settings, start_worker: StartWorker, trace: Path, way: str
) -> None:
    """kill -9 of the event process in a handler: the event is delivered again at once, to another one."""
    worker = start_worker(settings, "forking", "--processes", "1")
    [victim] = worker.child_pids("limetask_worker.event_runner")
    publish_event("acme", "forking.held.now", {"way": way, "path": str(trace)})
    eventually(lambda: lines(trace), what="the handler's process")
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: len(lines(trace)) == 2, what="the second run")
    Path(f"{trace}.release").touch()
    assert worker.stop() == 0
