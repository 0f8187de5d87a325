"""Signals that reach every process of a worker, and standard streams that are closed."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from limetask import Settings, Status, get_status, send_task
from limetask.topology import Names
from tests.broker import consumer_count, queue_length
from tests.waiting import eventually
from tests.worker import Worker, environment_of

StartWorker = Callable[..., Worker]
STOPPING = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_for_the_whole_group_stops_the_recorder_last(
    settings: Settings, start_worker: StartWorker, tmp_path: Path, number: signal.Signals
) -> None:
    """As systemd and terminals send it: running tasks end, all ends are recorded, and the exit code is 0."""
    worker = start_worker(settings, "shop", "--processes", "2", "--slots", "2")
    tasks = ["hold", "hold", "hold_late", "hold_late"]
    running = [send_task(f"shop.tasks.{task}", "acme", str(tmp_path / "trace")) for task in tasks]
    eventually(lambda: all(status.refresh().status is Status.STARTED for status in running))
    waiting = [send_task("shop.tasks.add", "acme", one, 1) for one in range(5)]
    os.killpg(worker.process.pid, number)
    eventually(lambda: queue_length(settings.broker_url, Names(settings.namespace).task_queue("default")) == 5)
    [recorder] = worker.child_pids("limetask_worker.recorder")
    ended, _ = psutil.wait_procs([psutil.Process(recorder)], timeout=3)
    assert ended == [], "the recorder did not wait for the tasks"
    (tmp_path / "trace.release").touch()
    assert worker.process.wait(40) == 0
    assert [get_status(status.id, "acme").status for status in running] == [Status.SUCCESS] * 4
    assert {status.refresh().status for status in waiting} == {Status.PENDING}
    assert "died" not in worker.log
    assert "Traceback" not in worker.log


@pytest.mark.parametrize(
    ("numbers", "to_group"),
    [
        ([signal.SIGQUIT], True),
        ([signal.SIGQUIT], False),
        ([signal.SIGTERM, signal.SIGTERM], True),
        ([signal.SIGTERM, signal.SIGQUIT], False),
    ],
)
def test_a_worker_that_stops_at_once_says_how_its_tasks_ended(
    settings: Settings, start_worker: StartWorker, tmp_path: Path, numbers: list[signal.Signals], to_group: bool
) -> None:
    """No running task is waited for, and none stays STARTED; what has ended is recorded as it ended."""
    worker = start_worker(settings, "shop", "--processes", "2", "--slots", "2")
    running = [send_task("shop.tasks.hold", "acme", str(tmp_path / "trace")) for _ in range(2)]
    late = send_task("shop.tasks.hold_late", "acme", str(tmp_path / "late"))
    eventually(lambda: all(status.refresh().status is Status.STARTED for status in (*running, late)))
    quick = send_task("shop.tasks.add", "acme", 1, 2)
    assert quick.wait(20).result == 3
    for number in numbers:
        (os.killpg if to_group else os.kill)(worker.process.pid, number)
        eventually(lambda: "stopping" in worker.log)
    assert worker.process.wait(25) == 1
    ends = [status.refresh() for status in running]
    assert [(end.status, end.error and end.error.type) for end in ends] == [(Status.FAILURE, "WorkerLost")] * 2
    assert quick.refresh().status is Status.SUCCESS
    assert "Traceback" not in worker.log
    assert queue_length(settings.broker_url, Names(settings.namespace).task_queue("default")) == 1
    start_worker(settings, "shop", "--processes", "1")
    (tmp_path / "late.release").touch()
    assert late.wait(40).status is Status.SUCCESS


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_other_signals_for_the_whole_group_do_nothing(
    settings: Settings, start_worker: StartWorker, tmp_path: Path, number: signal.Signals
) -> None:
    """Those that would end a process that does not know them: running tasks end, and the worker goes on."""
    worker = start_worker(settings, "shop", "--processes", "1")
    running = send_task("shop.tasks.hold", "acme", str(tmp_path / "trace"))
    eventually(lambda: running.refresh().status is Status.STARTED)
    os.killpg(worker.process.pid, number)
    (tmp_path / "trace.release").touch()
    assert running.wait(20).status is Status.SUCCESS
    assert send_task("shop.tasks.add", "acme", 1, 2).wait(20).result == 3
    assert worker.stop() == 0
    assert "died" not in worker.log


def test_a_lone_task_ends_before_the_worker(settings: Settings, start_worker: StartWorker, tmp_path: Path) -> None:
    """The process of a task that runs alone leaves the signal to the supervisor, too."""
    worker = start_worker(settings, "forking", "--processes", "1")
    path = tmp_path / "alone"
    status = send_task("forking.tasks.hold_alone", "acme", str(path))
    eventually(lambda: len(lines(path)) == 2, 30)
    os.killpg(worker.process.pid, signal.SIGTERM)  # ends what the task has forked, as it should
    eventually(lambda: "stopping" in worker.log)
    Path(f"{path}.release").touch()
    assert worker.process.wait(40) == 0
    assert get_status(status.id, "acme").result == int(lines(path)[1])


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_while_all_is_starting_stops_it(
    settings: Settings, start_worker: StartWorker, number: signal.Signals
) -> None:
    """Processes that do not yet listen for signals are not killed by them: nothing is said to have died."""
    worker = start_worker(settings, "shop", "--processes", "2", ready=False)
    eventually(lambda: len(psutil.Process(worker.process.pid).children()) >= 3)
    os.killpg(worker.process.pid, number)
    assert worker.process.wait(30) == 0
    assert "died" not in worker.log
    assert "Traceback" not in worker.log


@pytest.mark.parametrize(
    "module", ["limetask_worker.child", "limetask_worker.recorder", "limetask_worker.event_runner"]
)
def test_a_signal_for_one_process_has_it_replaced(
    settings: Settings, start_worker: StartWorker, tmp_path: Path, module: str
) -> None:
    """SIGTERM for a single child: what it runs ends, another one takes its place, and the worker goes on."""
    worker = start_worker(settings, "forking", "shop", "--processes", "1")
    running = send_task("shop.tasks.hold", "acme", str(tmp_path / "trace"))
    eventually(lambda: running.refresh().status is Status.STARTED)
    [asked] = worker.child_pids(module)
    os.kill(asked, signal.SIGTERM)
    eventually(lambda: "got a signal to stop: another takes its place" in worker.log)
    (tmp_path / "trace.release").touch()
    assert running.wait(20).status is Status.SUCCESS
    eventually(lambda: worker.child_pids(module) not in ([], [asked]), what="another process")
    assert send_task("forking.tasks.ping", "acme").wait(20).status is Status.SUCCESS
    assert worker.stop() == 0
    assert running.refresh().status is Status.SUCCESS


def test_a_second_hangup_does_not_cut_tasks_off(settings: Settings, start_worker: StartWorker, tmp_path: Path) -> None:
    """A closed terminal sends it more than once, and nobody means haste by it."""
    worker = start_worker(settings, "shop", "--processes", "1")
    status = send_task("shop.tasks.hold", "acme", str(tmp_path / "trace"))
    eventually(lambda: status.refresh().status is Status.STARTED)
    worker.process.send_signal(signal.SIGTERM)
    eventually(lambda: "stopping" in worker.log)
    worker.process.send_signal(signal.SIGHUP)
    queue = Names(settings.namespace).task_queue("default")
    eventually(lambda: consumer_count(settings.broker_url, queue) == 0, what="a worker that takes nothing more")
    waiting = send_task("shop.tasks.add", "acme", 1, 2)
    (tmp_path / "trace.release").touch()
    assert worker.process.wait(30) == 0
    assert status.refresh().status is Status.SUCCESS
    assert waiting.refresh().status is Status.PENDING


def test_a_hangup_that_is_ignored_stays_ignored(settings: Settings, start_worker: StartWorker) -> None:
    """As under `nohup`: the worker outlives its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        worker = start_worker(settings, "forking", "--processes", "1")
    finally:
        signal.signal(signal.SIGHUP, before)
    os.killpg(worker.process.pid, signal.SIGHUP)
    told = send_task("forking.tasks.signals_of_a_program", "acme").wait(20).result
    assert told["SIGHUP"] == str(int(signal.SIG_IGN))
    assert worker.stop() == 0


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_obstacle(settings: Settings, tmp_path: Path, closed: str) -> None:
    """Started with closed streams, as some daemons are, the worker runs tasks and ends with 0."""
    program = shlex.quote(str(Path(sys.executable).with_name("limetask-worker")))
    process = subprocess.Popen(
        ["/bin/sh", "-c", f"exec {program} leaving --processes 1 {closed}"],
        env=environment_of(settings),
        cwd=tmp_path,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert send_task("leaving.ping", "acme").wait(30).status is Status.SUCCESS
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.parametrize("what", ["sys.stdout", "sys.stderr", "sys.stdin", "1", "0"])
def test_a_body_may_close_standard_streams(settings: Settings, start_worker: StartWorker, what: str) -> None:
    """The process goes on, still logs, and ends with 0."""
    worker = start_worker(settings, "leaving", "--processes", "1")
    closing = send_task("leaving.close", "acme", what)
    assert closing.wait(20).status is Status.SUCCESS
    after = send_task("leaving.ping", "acme")
    assert after.wait(20).status is Status.SUCCESS
    eventually(lambda: f"succeeded task_id={after.id}" in worker.log)
    assert worker.stop() == 0
    assert "died" not in worker.log
    assert "Traceback" not in worker.log


def test_nobody_who_reads_the_log_is_no_obstacle(settings: Settings, tmp_path: Path) -> None:
    """The reader of a pipe with the worker's output has ended: tasks run, and the exit code is 0."""
    program = Path(sys.executable).with_name("limetask-worker")
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [program, "leaving", "--processes", "1"],
        env=environment_of(settings),
        cwd=tmp_path,
        start_new_session=True,
        stdout=writing,
        stderr=writing,
    )
    os.close(writing)
    os.close(reading)
    try:
        assert send_task("leaving.ping", "acme").wait(30).status is Status.SUCCESS
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_a_recorder_that_dies_while_all_stops_is_replaced(
    settings: Settings, start_worker: StartWorker, tmp_path: Path
) -> None:
    """What the last tasks end with is recorded by another one, before the worker ends."""
    worker = start_worker(settings, "shop", "--processes", "1")
    status = send_task("shop.tasks.hold", "acme", str(tmp_path / "trace"))
    eventually(lambda: status.refresh().status is Status.STARTED)
    [recorder] = worker.child_pids("limetask_worker.recorder")
    worker.process.send_signal(signal.SIGTERM)
    eventually(lambda: "stopping" in worker.log)
    os.kill(recorder, signal.SIGKILL)
    eventually(lambda: worker.child_pids("limetask_worker.recorder") not in ([], [recorder]), what="another recorder")
    (tmp_path / "trace.release").touch()
    assert worker.process.wait(40) == 0
    assert get_status(status.id, "acme").status is Status.SUCCESS
