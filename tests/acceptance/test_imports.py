"""Where and how often users' modules are imported."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from limetask import Settings, send_task
from tests.waiting import eventually
from tests.worker import Worker, write_files

StartWorker = Callable[..., Worker]

TRACED = """
    import os
    from pathlib import Path
    with Path("imported").open("a") as traces:
        traces.write(f"{__name__} {os.getpid()}\\n")
"""
TASK = """
    import asyncio
    from limetask import event_handler, task

    async def value():
        return 3

    @task
    def run(app):
        return found

    @event_handler("shelf.*")
    def hear(app, event):
        pass

    def make(identifier):
        return identifier
"""


def test_asyncio_run_works_at_import(settings: Settings, start_worker: StartWorker, tmp_path: Path) -> None:
    """A module may run a loop while it is imported, as it may in a program of its own; the factory's module too."""
    found = "\n    found = asyncio.run(value())\n"
    write_files(tmp_path, {"shelf/tasks.py": TASK + found, "platform_apps.py": TASK + found})
    worker = start_worker(settings, "shelf", "--processes", "1", LIMETASK_APPLICATION_FACTORY="platform_apps:make")
    assert send_task("shelf.tasks.run", "acme").wait(20).result == 3
    assert worker.stop() == 0


def test_what_is_scheduled_at_import_does_not_come_to_our_loop(
    settings: Settings, start_worker: StartWorker, tmp_path: Path
) -> None:
    """Also without uvloop: users' coroutines do not run beside the connection to the broker."""
    schedule = """
    async def leave_trace():
        Path("ran").touch()

    try:
        found = 3
        scheduled = asyncio.ensure_future(leave_trace())
    except RuntimeError:  # from Python 3.14 on
        pass
    """
    without = "raise ImportError"
    code = f"    from pathlib import Path\n{TASK}{schedule}"
    write_files(tmp_path, {"uvloop.py": without, "shelf/tasks.py": code})
    worker = start_worker(settings, "shelf", "--processes", "1", folder=tmp_path)
    assert send_task("shelf.tasks.run", "acme").wait(20).result == 3
    assert worker.stop() == 0
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("create", ["asyncio.create_task(value())", "asyncio.get_running_loop()"])
def test_no_loop_runs_at_import(settings: Settings, start_worker: StartWorker, tmp_path: Path, create: str) -> None:
    """A task that a module creates at its import is an error: it would run beside the connection to the broker."""
    write_files(tmp_path, {"shelf/tasks.py": f"{TASK}\n    found = {create}\n"})
    worker = start_worker(settings, "shelf", "--processes", "1", ready=False)
    assert worker.process.wait(30) == 1
    assert "cannot import shelf.tasks" in worker.log
    assert "RuntimeError: no running event loop" in worker.log


def test_only_modules_are_imported_and_each_once(settings: Settings, start_worker: StartWorker, tmp_path: Path) -> None:
    """Scripts whose names are no module names are not executed; a module is, once in each process that runs tasks."""
    write_files(
        tmp_path,
        {
            "shelf/__init__.py": TRACED,
            "shelf/tasks.py": TRACED + TASK + "\n    found = 3\n",
            "shelf/scripts/drop-all.py": TRACED,
            "shelf/scripts/fill.py": TRACED,
            "shelf/migrations/0001_initial.py": TRACED,
            "shelf/with-dash/__init__.py": TRACED,
            "shelf/with-dash/inner.py": TRACED,
            "shelf/class.py": TRACED,
            "shelf/__main__.py": TRACED,
        },
    )
    worker = start_worker(settings, "shelf", "shelf.tasks", "shelf", "--processes", "1")
    assert send_task("shelf.tasks.run", "acme").wait(20).result == 3
    assert worker.stop() == 0
    imported = Counter((tmp_path / "imported").read_text().splitlines())
    assert {line.split()[0] for line in imported} == {"shelf", "shelf.tasks", "shelf.scripts.fill"}
    assert set(imported.values()) == {1}
    assert len(imported) == 3 * 2  # in the task process and in the event process


FORK = """
    import os
    from pathlib import Path

    def fork_here():
        pid = os.fork()
        if pid:
            with Path("forked").open("a") as forked:
                forked.write(f"{pid}\\n")
"""


@pytest.mark.parametrize(
    "where", ["fork_here()", "worker_process_started(fork_here)"], ids=["import", "worker_process_started"]
)
def test_what_is_forked_before_the_first_task_is_no_second_worker(
    settings: Settings, start_worker: StartWorker, tmp_path: Path, where: str
) -> None:
    """A process that a module forks at its import, or a hook, ends where that does, and tasks run on in the first."""
    hooks = "    from limetask import worker_process_started\n"
    tasks = f"{TASK}\n    found = os.getpid()\n    {where}\n"
    write_files(tmp_path, {"shelf/tasks.py": FORK + hooks + tasks})
    worker = start_worker(settings, "shelf", "--processes", "1", "--roles", "tasks,recorder")
    [task_process] = worker.child_pids()
    results = [send_task("shelf.tasks.run", "acme").wait(20).result for _ in range(5)]
    assert results == [task_process] * 5
    [forked] = map(int, (tmp_path / "forked").read_text().split())
    eventually(lambda: not psutil.pid_exists(forked) or psutil.Process(forked).status() == psutil.STATUS_ZOMBIE)
    assert worker.stop() == 0


LOGGING_HANDLER = """
    import logging

    class Starting(logging.Handler):
        def emit(self, record):
            if not Path("signals").exists():
                start_one()

    logging.getLogger("limetask_worker.end_line").addHandler(Starting())
"""


@pytest.mark.parametrize("where", ["import", "worker_process_started", "worker_process_stopping", "logging"])
def test_programs_that_are_started_outside_of_tasks_can_be_stopped(
    settings: Settings, start_worker: StartWorker, tmp_path: Path, where: str
) -> None:
    """A program that users' code starts has no signal blocked or ignored, but those that the worker had so."""
    look = "import signal; print([s.name for s in signal.pthread_sigmask(signal.SIG_BLOCK, [])],"
    look += " [s.name for s in signal.Signals if signal.getsignal(s) == signal.SIG_IGN])"
    hooks = f"""
    import subprocess, sys
    from pathlib import Path
    from limetask import worker_process_started, worker_process_stopping

    def start_one():
        told = subprocess.run([sys.executable, "-c", {look!r}], capture_output=True, text=True).stdout
        Path("signals").write_text(told)

    {"start_one()" if where == "import" else f"{where}(start_one)" if where != "logging" else ""}
    """
    if where == "logging":
        hooks += LOGGING_HANDLER
    write_files(tmp_path, {"shelf/tasks.py": TASK + "\n    found = 3\n", "shelf/starting.py": hooks})
    worker = start_worker(settings, "shelf", "--processes", "1", "--roles", "tasks,recorder")
    assert send_task("shelf.tasks.run", "acme").wait(20).result == 3
    assert worker.stop() == 0
    outside = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout
    assert (tmp_path / "signals").read_text() == outside
