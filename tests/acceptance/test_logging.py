"""What a worker logs, and users' own configurations of logging."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from limetask import Settings, Status, TaskStatus, send_task
from limetask.topology import Names
from tests.broker import queue_length
from tests.waiting import eventually
from tests.worker import PACKAGES, Worker, write_files

StartWorker = Callable[..., Worker]

TASKS = """
    import asyncio
    from contextvars import ContextVar
    from limetask import TaskFailure, event_handler, on_failure, task

    customer = ContextVar("customer", default="nobody")

    @task
    def add(app, first, second):
        return first + second

    @task
    def crash(app, text="nothing in stock"):
        customer.set(app.identifier)
        raise ValueError(text)

    @task
    async def crash_async(app):
        crash(app)

    @task
    def fail(app):
        try:
            {}["pens"]
        except KeyError as exc:
            exc.add_note("they were sold")
            raise TaskFailure("no pens") from exc
"""
# A handler as error reporters have one: it notes what it is given, in a file of its own.
REPORTER = """
    import json
    import logging
    from pathlib import Path

    class Reporter(logging.Handler):
        def emit(self, record):
            from shelf.tasks import customer

            error = record.exc_info and record.exc_info[1]
            line = {
                "level": record.levelname, "text": record.getMessage(), "error": error and type(error).__name__,
                "function": error and record.exc_info[2].tb_frame.f_code.co_name, "customer": customer.get(),
                "path": record.pathname, "process": record.process,
            }
            with Path("report.jsonl").open("a") as report:
                report.write(json.dumps(line) + "\\n")

    logging.getLogger().addHandler(Reporter(logging.WARNING))
"""
# It holds up whoever calls it, as one that sends mail while the mail server does not answer, until a file is there.
SLOW = """
    import logging
    import time
    from pathlib import Path

    def wait():
        deadline = time.monotonic() + 60
        while not Path("go-on").exists() and time.monotonic() < deadline:
            time.sleep(0.01)

    class Slow(logging.Handler):
        def emit(self, record):
            Path("holding-up").touch()
            wait()
"""


def reported(folder: Path) -> list[dict[str, str]]:
    path = folder / "report.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def sent(name: str, *args: object) -> TaskStatus:
    return send_task(f"shelf.tasks.{name}", "acme", *args)


@pytest.mark.parametrize(
    "config",
    [
        'logging.getLogger("").addHandler(Slow(logging.ERROR))',
        'logging.getLogger("limetask_worker").addHandler(Slow(logging.ERROR))',
        'logging.getLogger("limetask_worker.end_line").addFilter(lambda record: wait() or True)',
        "logging.setLogRecordFactory(lambda *args: wait() or logging.LogRecord(*args))",
    ],
    ids=["root's handler", "limetask's handler", "filter", "record factory"],
)
def test_users_logging_does_not_hold_up_the_worker(
    settings: Settings, start_worker: StartWorker, tmp_path: Path, config: str
) -> None:
    """While a user's logging code stands still, tasks of others are taken, run and acked, and no line is lost."""
    write_files(tmp_path, {"shelf/tasks.py": TASKS, "shelf/slow.py": SLOW + f"\n    {config}\n"})
    worker = start_worker(settings, "shelf", "--processes", "1", "--roles", "tasks,recorder", LIMETASK_HEARTBEAT="5")
    assert sent("crash").wait(20).status is Status.FAILURE
    eventually((tmp_path / "holding-up").exists if "Slow" in config else lambda: True)
    others = [sent("add", number, 1) for number in range(50)]
    assert [status.wait(20).result for status in others] == [number + 1 for number in range(50)]
    queue = Names(settings.namespace).task_queue("default")
    eventually(lambda: queue_length(settings.broker_url, queue) == 0)
    (tmp_path / "go-on").touch()
    assert worker.stop() == 0
    assert worker.log.count("succeeded") == 50
    assert "ValueError: nothing in stock" in worker.log


def test_loggers_that_are_made_in_a_body_hold_up_no_loop(
    settings: Settings, start_worker: StartWorker, tmp_path: Path
) -> None:
    """What a body imports of limetask first, such as `limetask.aio`, logs by the thread that writes lines as well."""
    importing = """
    import logging, threading
    from limetask import task

    class Noting(logging.Handler):
        def emit(self, record):
            open("written-by", "a").write(threading.current_thread().name + "\\n")

    @task
    async def import_aio(app):
        from limetask.aio import connection, listener

        for one in (connection, listener):
            one.logger.logger.addHandler(Noting())
            one.logger.error("lost")
    """
    write_files(tmp_path, {"shelf/tasks.py": TASKS, "shelf/importing.py": importing})
    worker = start_worker(settings, "shelf", "--processes", "1", "--roles", "tasks,recorder")
    assert send_task("shelf.importing.import_aio", "acme").wait(20).status is Status.SUCCESS
    assert worker.stop() == 0
    assert (tmp_path / "written-by").read_text().split("\n") == ["limetask log", "limetask log", ""]


@pytest.mark.parametrize("where", ["import", "body"])
def test_a_users_configuration_does_not_silence_limetask(
    settings: Settings, start_worker: StartWorker, tmp_path: Path, where: str
) -> None:
    """After a `dictConfig` that disables all loggers, as is Python's default, limetask's lines go where it says."""
    configure = """
    import logging.config
    from limetask import task

    def configure():
        handler = {"class": "logging.FileHandler", "filename": "own.log"}
        logging.config.dictConfig(
            {"version": 1, "handlers": {"own": handler}, "root": {"handlers": ["own"], "level": "WARNING"}}
        )

    @task
    def configure_now(app):
        configure()
    """
    now = "\n    configure()\n" if where == "import" else ""
    write_files(tmp_path, {"shelf/tasks.py": TASKS, "shelf/configuring.py": configure + now})
    worker = start_worker(settings, "shelf", "--processes", "1", "--roles", "tasks,recorder")
    if where == "body":
        send_task("shelf.configuring.configure_now", "acme").wait(20)
    sent("add", 1, 2).wait(20)
    assert worker.stop() == 0
    assert "succeeded" in (tmp_path / "own.log").read_text()


def test_a_handler_that_was_there_stays(settings: Settings, start_worker: StartWorker, tmp_path: Path) -> None:
    """A handler of the root logger from before the worker began, an instrumentation's, is kept beside the worker's."""
    site = 'import logging; logging.getLogger().addHandler(logging.FileHandler("site.log"))'
    write_files(tmp_path, {"shelf/tasks.py": TASKS, "sitecustomize.py": site})
    worker = start_worker(settings, "shelf", "--processes", "1", PYTHONPATH=f"{tmp_path}:{PACKAGES}")
    sent("add", 1, 2).wait(20)
    assert worker.stop() == 0
    assert "succeeded" in worker.log
    assert "succeeded" in (tmp_path / "site.log").read_text()


def test_error_reporters_see_a_failures_exception(
    settings: Settings, start_worker: StartWorker, tmp_path: Path
) -> None:
    """A failure is logged as an error, with its exception from the body on, in the body's own context."""
    write_files(tmp_path, {"shelf/tasks.py": TASKS, "shelf/reporter.py": REPORTER})
    worker = start_worker(settings, "shelf", "--processes", "1", "--roles", "tasks,recorder")
    for name in ("crash", "crash_async", "fail"):
        sent(name).wait(20)
    assert worker.stop() == 0
    told = {line["function"]: line for line in reported(tmp_path)}
    for function in ("crash", "crash_async"):
        line = told[function]
        assert (line["level"], line["error"], line["customer"]) == ("ERROR", "ValueError", "acme")
        assert line["text"] == "failed: ValueError: nothing in stock"
        assert line["path"].endswith("end_line.py")
    # That one was raised on purpose.
    assert (told["fail"]["level"], told["fail"]["error"]) == ("WARNING", "TaskFailure")


def test_error_reporters_see_what_fails_alone(settings: Settings, start_worker: StartWorker, tmp_path: Path) -> None:
    """A late task that took its worker down, and fails in a process of its own, is reported from there, once."""
    tasks = """
    import os
    from pathlib import Path
    from limetask import task

    @task(acks_late=True)
    def fall(app):
        if not Path("fell").exists():
            Path("fell").touch()
            os.kill(os.getpid(), 9)
        raise ValueError("again")
    """
    write_files(tmp_path, {"shelf/tasks.py": TASKS, "shelf/late.py": tasks, "shelf/reporter.py": REPORTER})
    worker = start_worker(settings, "shelf", "--processes", "1", "--roles", "tasks,recorder")
    assert send_task("shelf.late.fall", "acme").wait(30).status is Status.FAILURE
    assert worker.stop() == 0
    assert [line["error"] for line in reported(tmp_path) if "again" in line["text"]] == ["ValueError"]


def test_a_task_failure_keeps_what_it_was_raised_from(
    settings: Settings, start_worker: StartWorker, tmp_path: Path
) -> None:
    """The status, and the log, of a TaskFailure that was raised from another exception show that one, and its notes."""
    write_files(tmp_path, {"shelf/tasks.py": TASKS})
    worker = start_worker(settings, "shelf", "--processes", "1")
    ended = sent("fail").wait(20)
    assert worker.stop() == 0
    assert ended.error is not None
    assert (ended.result, ended.error.type, ended.error.message) == ("no pens", "TaskFailure", "no pens")
    for told in ("KeyError: 'pens'", "they were sold", "direct cause"):
        assert told in ended.error.traceback
        assert told in worker.log


def test_nobody_forges_a_line(settings: Settings, start_worker: StartWorker, tmp_path: Path) -> None:
    """What a message or an exception says, whatever characters it has, begins no line and steers no terminal."""
    forged = "2026-01-01 00:00:00.000+00:00 INFO    supervisor: forged"
    text = "".join(f"{separator}{forged}" for separator in ("\n", "\r", "\x0b", "\x85", "\u2028", "\u2029"))
    write_files(tmp_path, {"shelf/tasks.py": TASKS})
    worker = start_worker(settings, "shelf", "--processes", "1")
    sent("crash", f"\x1b[2K\x1b[1A\u202e{text}").wait(20)
    assert worker.stop() == 0
    assert worker.log.count(forged) >= 6
    assert not any(line.startswith(forged) for line in worker.log.splitlines())
    assert not set("\x1b\u202e\r\u2028\x85") & set(worker.log)
