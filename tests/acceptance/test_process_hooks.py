"""What users' code does when a worker's process begins and ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from limetask import Settings, Status, publish_event, send_task
from limetask.topology import Names
from tests.broker import queue_length
from tests.waiting import eventually
from tests.worker import Worker, write_files

StartWorker = Callable[..., Worker]

# Each line of a trace is appended in one write: when, and in which process.
HOOKS = """
    import asyncio
    import atexit
    import os
    import threading
    import time
    from pathlib import Path
    from limetask import event_handler, task, worker_process_started, worker_process_stopping

    def trace(what):
        with Path("trace").open("a") as traces:
            traces.write(f"{what} {os.getpid()} {threading.current_thread().name}\\n")

    trace("imported")

    @worker_process_started
    def first():
        asyncio.run(asyncio.sleep(0))
        trace("first")

    @worker_process_started
    def second():
        trace("second")

    @worker_process_stopping
    def close():
        trace("close")

    @worker_process_stopping
    def broken():
        trace("broken")
        raise ValueError("it is closed already")

    @atexit.register
    def at_exit():
        trace("atexit")

    @task
    def run(app):
        trace("run")
        return os.getpid()

    @task(time_limit=1)
    def stay(app):
        trace("run")
        time.sleep(3600)

    @task(acks_late=True, time_limit=2)
    def fall(app, then):
        trace("run")
        if not Path("fell").exists():
            Path("fell").touch()
            os.kill(os.getpid(), 9)
        if then == "stay":
            time.sleep(3600)
        return os.getpid()

    @event_handler("shelf.*")
    def hear(app, event):
        trace("run")
"""
LIFE = ["imported", "first", "second", "run", "broken", "close", "atexit"]


def lives(folder: Path) -> dict[str, list[str]]:
    """What each process has done, in its order, by its process id; all but bodies in the main thread."""
    done: dict[str, list[str]] = {}
    for line in (folder / "trace").read_text().splitlines():
        what, pid, thread = line.split(" ", 2)
        assert (thread == "MainThread") == (what != "run"), line
        done.setdefault(pid, []).append(what)
    return done


def start(start_worker: StartWorker, settings: Settings, tmp_path: Path, *arguments: str, hooks: str = HOOKS) -> Worker:
    write_files(tmp_path, {"shelf/tasks.py": hooks})
    return start_worker(settings, "shelf", "--processes", "1", *arguments)


def test_hooks_surround_all_that_a_process_runs(settings: Settings, start_worker: StartWorker, tmp_path: Path) -> None:
    """In the task process and the event process hooks run after the imports, and before the end, in the main thread."""
    worker = start(start_worker, settings, tmp_path)
    pid = send_task("shelf.tasks.run", "acme").wait(20).result
    publish_event("acme", "shelf.full", None)
    eventually(lambda: (tmp_path / "trace").read_text().count("run") == 2)
    assert worker.stop() == 0
    assert list(lives(tmp_path).values()) == [LIFE, LIFE]
    assert str(pid) in lives(tmp_path)
    assert worker.log.count("@worker_process_stopping: shelf.tasks.broken failed") == 2
    assert "ValueError: it is closed already" in worker.log


def test_processes_whose_supervisor_is_killed_have_their_end(
    settings: Settings, start_worker: StartWorker, tmp_path: Path
) -> None:
    """They stop by themselves, with their hooks, and leave no traceback but that of the broken one."""
    worker = start(start_worker, settings, tmp_path)
    assert send_task("shelf.tasks.run", "acme").wait(20).status is Status.SUCCESS
    publish_event("acme", "shelf.full", None)
    eventually(lambda: (tmp_path / "trace").read_text().count("run") == 2)
    children = psutil.Process(worker.process.pid).children(recursive=True)
    worker.process.kill()
    worker.process.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    assert list(lives(tmp_path).values()) == [LIFE, LIFE]
    assert worker.log.count("Traceback") == worker.log.count("ValueError: it is closed already") == 2


def test_a_process_that_makes_room_has_its_end(settings: Settings, start_worker: StartWorker, tmp_path: Path) -> None:
    """One that has run enough tasks, and one in which a task exceeded its time limit, call their hooks as well."""
    start(start_worker, settings, tmp_path, "--roles", "tasks,recorder", "--max-tasks-per-child", "1", "--grace", "0.2")
    first = send_task("shelf.tasks.run", "acme").wait(20)
    eventually(lambda: lives(tmp_path)[str(first.result)] == LIFE)
    assert send_task("shelf.tasks.stay", "acme").wait(20).status is Status.FAILURE
    eventually(lambda: list(lives(tmp_path).values())[:2] == [LIFE, LIFE])


@pytest.mark.parametrize("then", ["return", "stay"])
def test_a_task_in_a_process_of_its_own_has_hooks(
    settings: Settings, start_worker: StartWorker, tmp_path: Path, then: str
) -> None:
    """So does the process of a late task that took its worker down, also if it exceeds its time limit there."""
    worker = start(start_worker, settings, tmp_path, "--roles", "tasks,recorder")
    ended = send_task("shelf.tasks.fall", "acme", then).wait(30)
    assert ended.status is (Status.SUCCESS if then == "return" else Status.FAILURE)
    eventually(lambda: LIFE in lives(tmp_path).values())
    assert worker.stop() == 0


@pytest.mark.parametrize(
    ("hook", "told"),
    [
        ("@worker_process_stopping\n    def slow():\n        time.sleep(3600)", "stopping: shelf.tasks.slow"),
        ("atexit.register(time.sleep, 3600)", "an atexit handler"),
    ],
    ids=["hook", "atexit"],
)
def test_what_does_not_end_has_a_deadline(
    settings: Settings, start_worker: StartWorker, tmp_path: Path, hook: str, told: str
) -> None:
    """A hook or an atexit handler that does not return keeps its process for ten seconds, which is then told."""
    worker = start(start_worker, settings, tmp_path, "--roles", "tasks,recorder", hooks=f"{HOOKS}\n    {hook}\n")
    assert send_task("shelf.tasks.run", "acme").wait(20).status is Status.SUCCESS
    assert worker.stop() == 0
    assert "after 10 s this had not ended" in worker.log
    assert told in worker.log


@pytest.mark.parametrize(
    "how",
    [
        'raise ValueError("no database")',
        'raise SystemExit("no database")',
        'raise asyncio.CancelledError("no database")',
        'return asyncio.sleep(0, "no database")  # nobody awaits it',
    ],
)
def test_a_failed_start_stops_the_worker(
    settings: Settings, start_worker: StartWorker, tmp_path: Path, how: str
) -> None:
    """A hook that fails at the start ends the worker with its traceback, and no task is taken."""
    hook = f"\n    import asyncio\n\n    @worker_process_started\n    def connect():\n        {how}\n"
    write_files(tmp_path, {"shelf/tasks.py": HOOKS + hook})
    status = send_task_later(settings)
    worker = start_worker(settings, "shelf", "--processes", "1", ready=False)
    assert worker.process.wait(30) == 1
    assert "@worker_process_started: shelf.tasks.connect failed, so no task was taken" in worker.log
    assert "Traceback" in worker.log
    assert ("no database" if "raise" in how else "it returned a value of type coroutine") in worker.log
    assert status() == 1
    # What was not begun has no end; atexit handlers know themselves what they have to do.
    assert {tuple(life) for life in lives(tmp_path).values()} <= {("imported", "first", "second", "atexit")}


def send_task_later(settings: Settings) -> Callable[[], int]:
    """Send a task; return what counts the messages in its queue."""
    send_task("shelf.tasks.run", "acme")
    return lambda: queue_length(settings.broker_url, Names(settings.namespace).task_queue("default"))


def test_atexit_handlers_run_in_the_recorder_too(settings: Settings, start_worker: StartWorker, tmp_path: Path) -> None:
    """Also a process that imports no user code flushes at its end what an instrumentation has started in it."""
    site = """
    import atexit, sys
    from pathlib import Path
    atexit.register(lambda: Path("ended").open("a").write(" ".join(sys.argv) + "\\n"))
    """
    write_files(tmp_path, {"shelf/tasks.py": HOOKS, "sitecustomize.py": site})
    worker = start_worker(settings, "shelf", "--processes", "1", PYTHONPATH=str(tmp_path))
    assert worker.stop() == 0
    ended = (tmp_path / "ended").read_text()
    for module in ("limetask_worker/child.py", "limetask_worker/event_runner.py", "limetask_worker/recorder.py"):
        assert module in ended
