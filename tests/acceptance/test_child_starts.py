"""Child processes that cannot be started for a while, or end when nobody expects it."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from limetask import Settings, Status, send_task
from tests.waiting import eventually
from tests.worker import PACKAGES, Worker, write_files

StartWorker = Callable[..., Worker]

_MIB = 1024 * 1024


@contextmanager
def limited(worker: Worker, limit: int, most: int) -> Iterator[None]:
    """Let a supervisor, and what it starts meanwhile, have no more than `most` of something."""
    supervisor = psutil.Process(worker.process.pid)
    before = supervisor.rlimit(limit)
    supervisor.rlimit(limit, (most, before[1]))
    try:
        yield
    finally:
        supervisor.rlimit(limit, before)


@pytest.mark.parametrize(
    "module", ["limetask_worker.child", "limetask_worker.recorder", "limetask_worker.event_runner"]
)
def test_a_child_that_cannot_be_started_is_started_later(
    settings: Settings, start_worker: StartWorker, module: str
) -> None:
    """With no file descriptor free the supervisor says so, and tries again until there is one."""
    worker = start_worker(settings, "forking", "--processes", "1")
    [victim] = worker.child_pids(module)
    with limited(worker, resource.RLIMIT_NOFILE, 3):
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: worker.log.count("could be started: ") >= 2)
    assert "Too many open files" in worker.log
    eventually(lambda: worker.child_pids(module) not in ([], [victim]), what="another child")
    status = send_task("forking.tasks.ping", "acme")
    eventually(lambda: status.refresh().status is Status.SUCCESS)
    assert worker.stop() == 0


def test_no_task_is_taken_without_threads_to_run_it(settings: Settings, start_worker: StartWorker) -> None:
    """A task process that has no memory for its threads takes no task; its next start finds it waiting."""
    worker = start_worker(settings, "leaving", "--processes", "1", "--slots", "100", "--roles", "tasks,recorder")
    [victim] = worker.child_pids()
    with limited(worker, resource.RLIMIT_AS, 500 * _MIB):
        os.kill(victim, signal.SIGKILL)
        eventually(
            lambda: "not all threads can be started (can't start new thread)" in worker.log,
            what="a start without threads",
        )
        status = send_task("leaving.ping", "acme")
        eventually(lambda: worker.log.count("died: the worker process ended with exit code 1") >= 2)
        assert status.refresh().status is Status.PENDING
    assert status.wait(60).status is Status.SUCCESS


def release_in(folder: Path) -> Path:
    """A folder with a release of the code, as a deploy makes it."""
    shutil.copytree(PACKAGES / "leaving", folder / "release" / "leaving")
    shutil.copytree(PACKAGES / "leaving", folder / "release" / "only_here")
    return folder / "release"


def test_a_removed_folder_is_no_obstacle_for_installed_code(
    settings: Settings, start_worker: StartWorker, tmp_path: Path
) -> None:
    """The folder in which the worker was started is gone: what needs nothing of it goes on."""
    release = release_in(tmp_path)
    worker = start_worker(settings, "leaving", "--processes", "1", folder=release)
    [victim] = worker.child_pids()
    shutil.rmtree(release)
    os.kill(victim, signal.SIGKILL)
    assert send_task("leaving.ping", "acme").wait(30).result != victim
    assert worker.stop() == 0


def test_a_removed_release_is_told(settings: Settings, start_worker: StartWorker, tmp_path: Path) -> None:
    """The code itself is gone: the worker says so and ends with 1, instead of going on without some processes."""
    release = release_in(tmp_path)
    worker = start_worker(settings, "only_here", "--processes", "2", folder=release)
    shutil.rmtree(release)
    os.kill(worker.child_pids()[0], signal.SIGKILL)
    assert worker.process.wait(30) == 1
    assert f"the folder in which this worker was started has been removed: {release}" in worker.log


FAILING_AT_TIMES = """
    import os
    import time
    from pathlib import Path
    from limetask import event_handler, task, worker_process_started

    HERE = Path(__file__).parent

    if (HERE / "import").exists():
        raise OSError("half of it is there")

    @worker_process_started
    def connect():
        if (HERE / "hook").exists():
            raise ConnectionError("the database is being restarted")

    @event_handler("shop.#")
    def handle(app, event):
        pass

    @task
    def ping(app):
        return os.getpid()

    @task(acks_late=True)
    def hold(app):
        with (HERE / "begun").open("a") as begun:
            print(os.getpid(), file=begun)
        while not (HERE / "release").exists():
            time.sleep(0.01)
"""


@pytest.mark.parametrize("module", ["limetask_worker.child", "limetask_worker.event_runner"])
@pytest.mark.parametrize("what", ["hook", "import"])
def test_a_replacement_whose_code_fails_for_a_while_is_started_again(
    settings: Settings, start_worker: StartWorker, tmp_path: Path, module: str, what: str
) -> None:
    """What could start before may start again: the traceback is logged, and all others go on meanwhile."""
    write_files(tmp_path / "code", {"at_times/__init__.py": FAILING_AT_TIMES})
    worker = start_worker(settings, "at_times", "--processes", "2", folder=tmp_path / "code")
    before = worker.child_pids(module)
    flag = tmp_path / "code" / "at_times" / what
    flag.touch()
    os.kill(before[0], signal.SIGKILL)
    eventually(lambda: worker.log.count("could not start, and is tried again") >= 2)
    assert ("ConnectionError: the database" if what == "hook" else "OSError: half of it") in worker.log
    assert send_task("at_times.ping", "acme").wait(20).status is Status.SUCCESS
    flag.unlink()
    eventually(lambda: len(set(worker.child_pids(module)) - {before[0]}) == len(before))
    assert worker.stop() == 0


@pytest.mark.parametrize("what", ["hook", "import"])
def test_a_lone_task_whose_process_cannot_start_for_a_while_has_not_begun(
    settings: Settings, start_worker: StartWorker, tmp_path: Path, what: str
) -> None:
    """A late task that was lost with its worker waits until its own process can start: that is no further loss."""
    write_files(tmp_path / "code", {"at_times/__init__.py": FAILING_AT_TIMES})
    package = tmp_path / "code" / "at_times"
    worker = start_worker(settings, "at_times", "--processes", "2", folder=tmp_path / "code")
    held = send_task("at_times.hold", "acme")
    begun = package / "begun"
    eventually(lambda: begun.exists() and begun.read_text().endswith("\n"))
    flag = package / what
    flag.touch()
    os.kill(int(begun.read_text()), signal.SIGKILL)
    eventually(lambda: held.refresh().is_completed() or worker.log.count("a lone task could be started: ") >= 5, 60)
    assert held.refresh().status is Status.STARTED
    flag.unlink()
    (package / "release").touch()
    assert held.wait(30).status is Status.SUCCESS
    assert len(begun.read_text().splitlines()) == 2
    assert worker.stop() == 0


def test_a_child_that_leaves_before_it_is_ready_is_told_and_not_started_in_haste(
    settings: Settings, start_worker: StartWorker, tmp_path: Path
) -> None:
    """Exit code 0 is no good end of a process that had not begun to work."""
    flag = tmp_path / "flag"
    flag.touch()
    worker = start_worker(
        settings, "leaving", "--processes", "1", "--roles", "tasks", ready=False, LEAVING_AT_IMPORT=str(flag)
    )
    eventually(lambda: "failures in a row: the next start of a task process is in" in worker.log, 60)
    eventually(lambda: "died: the worker process ended with exit code 0; starting another" in worker.log)
    flag.unlink()
    worker.wait_until_ready()
    assert worker.stop() == 0


def test_a_body_that_leaves_is_lost_and_told(settings: Settings, start_worker: StartWorker) -> None:
    """os._exit(0) in a body: its task is lost, the log says why, and another process takes over."""
    worker = start_worker(settings, "leaving", "--processes", "1")
    ended = send_task("leaving.leave", "acme").wait(20)
    assert ended.error is not None
    assert (ended.error.type, ended.error.message) == ("WorkerLost", "the worker process ended with exit code 0")
    eventually(lambda: "died: the worker process ended with exit code 0; starting another" in worker.log)
    assert send_task("leaving.ping", "acme").wait(20).status is Status.SUCCESS


def test_a_process_that_became_another_program_is_lost(settings: Settings, start_worker: StartWorker) -> None:
    """It lives, and is no worker any more: it is killed, its task is lost, and another process takes over."""
    worker = start_worker(settings, "leaving", "--processes", "1")
    ended = send_task("leaving.become_another_program", "acme").wait(40)
    assert ended.error is not None
    assert ended.error.type == "WorkerLost"
    assert "closed its line to the supervisor" in ended.error.message
    assert send_task("leaving.ping", "acme").wait(20).status is Status.SUCCESS
    assert worker.stop() == 0


def test_a_kill_from_outside_is_not_put_down_to_memory(settings: Settings, start_worker: StartWorker) -> None:
    """SIGKILL alone says nothing of its reason."""
    worker = start_worker(settings, "leaving", "--processes", "1")
    [victim] = worker.child_pids()
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: "died: the worker process was killed by SIGKILL (signal 9); starting another" in worker.log)
    assert "memory" not in worker.log
