"""Log lines: for people and for machines, each with the task that it is about."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from limetask import Application
from limetask_worker.executor import Executor, current_work
from limetask_worker.log_thread import WORK_FIELD
from limetask_worker.logs import DURATION_FIELD, LogFormat, configure_logging, log_start_failure
from limetask_worker.work import Work
from tests.unit.works import work_of

pytestmark = pytest.mark.usefixtures("_restored_logging")
logger = logging.getLogger(__name__)


@pytest.fixture
def work() -> Iterator[Work]:
    """A task whose body is running here."""
    made = work_of(lambda app: None)
    token = current_work.set(made)
    yield made
    current_work.reset(token)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def json_line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    (line,) = lines(capsys)
    fields: dict[str, Any] = json.loads(line)
    return fields


def test_a_text_line_says_when_who_and_what(capsys: pytest.CaptureFixture[str]) -> None:
    """A text line is time with offset, level, process and message."""
    configure_logging("text", "info", "host.12.a")
    logger.warning("queue %s is full", "asap")
    (line,) = lines(capsys)
    pattern = r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d) WARNING host\.12\.a: queue asap is full"
    matched = re.fullmatch(pattern, line)
    assert matched, line
    assert datetime.fromisoformat(matched[1]).tzinfo is not None


def test_a_text_line_in_a_task_names_it(capsys: pytest.CaptureFixture[str], work: Work) -> None:
    """A line that is written while a task runs ends with the task's id, name, application and attempt."""
    configure_logging("text", "info", "host.12.a")
    logger.info("half way")
    (line,) = lines(capsys)
    fields = f"task_id={work.message.identity.task_id} task=pkg.tasks.run app=shop attempt=1"
    assert line.endswith(f"host.12.a: half way {fields}")


def test_a_json_line_has_fixed_fields(capsys: pytest.CaptureFixture[str]) -> None:
    """A JSON line is one object: time in UTC, level, process, logger and message."""
    configure_logging("json", "info", "host.12.a")
    logger.error("queue %s is\nfull", "asap")
    fields = json_line(capsys)
    assert datetime.fromisoformat(fields.pop("time")).utcoffset() is not None
    assert fields == {"level": "ERROR", "process": "host.12.a", "logger": __name__, "message": "queue asap is\nfull"}


def test_a_json_line_in_a_task_names_it(capsys: pytest.CaptureFixture[str], work: Work) -> None:
    """A line that is written while a task runs has the task's id, name, application and attempt."""
    configure_logging("json", "info", "host.12.a")
    logger.info("half way")
    fields = json_line(capsys)
    identity = work.message.identity
    named = {name: fields[name] for name in ("task_id", "task", "app", "attempt")}
    assert named == {"task_id": identity.task_id, "task": "pkg.tasks.run", "app": "shop", "attempt": 1}


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_line_about_a_task_names_it(capsys: pytest.CaptureFixture[str], log_format: LogFormat) -> None:
    """A line that limetask writes about a task, outside of its body, names it too, with its duration in seconds."""
    configure_logging(log_format, "info", "host.12.a")
    work = work_of(lambda app: None)
    logger.info("succeeded", extra={WORK_FIELD: work, DURATION_FIELD: 1.23456789})
    (line,) = lines(capsys)
    assert work.message.identity.task_id in line
    assert ("duration=1.234568" if log_format == "text" else '"duration":1.234568') in line


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_an_exception_comes_with_its_traceback(capsys: pytest.CaptureFixture[str], log_format: LogFormat) -> None:
    """A line about an exception holds its traceback; as JSON it is still one line."""
    configure_logging(log_format, "info", "host.12.a")
    try:
        int("one")
    except ValueError:
        logger.exception("it went wrong")
    written = lines(capsys)
    text = "\n".join(written) if log_format == "text" else json.loads(written[0])["exception"]
    assert "Traceback (most recent call last):" in text
    assert text.endswith("ValueError: invalid literal for int() with base 10: 'one'")
    assert log_format == "text" or len(written) == 1


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_the_level_decides_what_is_written(capsys: pytest.CaptureFixture[str], level: str) -> None:
    """Lines below the level are left out."""
    configure_logging("text", level, "host.12.a")
    levels = ["debug", "info", "warning", "error"]
    for name in levels:
        getattr(logger, name)("at %s", name)
    assert [line.rpartition(" ")[2] for line in lines(capsys)] == levels[levels.index(level) :]


@pytest.mark.parametrize(("level", "written"), [("info", ["warning", "error"]), ("error", ["error"])])
def test_alembic_is_quieter(capsys: pytest.CaptureFixture[str], level: str, written: list[str]) -> None:
    """What Alembic says of every step that it does not take is left out; its warnings are not."""
    configure_logging("text", level, "host.12.a")
    for name in ("info", "warning", "error"):
        getattr(logging.getLogger("alembic.runtime"), name)("at %s", name)
    assert [line.rpartition(" ")[2] for line in lines(capsys)] == written


def test_configuring_again_replaces_the_format(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever logged before, each line is written once, in the format that was asked for last."""
    configure_logging("text", "info", "host.12.a")
    configure_logging("json", "info", "host.12.b")
    logger.info("once")
    assert json_line(capsys)["process"] == "host.12.b"


@pytest.mark.usefixtures("coroutine_loops")
@pytest.mark.parametrize("kind", ["function", "coroutine"])
def test_users_logs_in_a_body_name_the_task(capsys: pytest.CaptureFixture[str], kind: str) -> None:
    """What a body logs with its own logger, on whatever thread it runs, names its task without the user's doing."""
    configure_logging("json", "info", "host.12.a")

    def function(app: Any) -> None:
        logging.getLogger("shop.orders").info("half way")

    async def coroutine(app: Any) -> None:
        await asyncio.to_thread(function, app)

    async def run(work: Work) -> None:
        executor = Executor(1, Application, 1000)
        try:
            await executor.run(work)
        finally:
            executor.close()

    work = work_of(function if kind == "function" else coroutine)
    asyncio.run(run(work))
    fields = json_line(capsys)
    assert (fields["logger"], fields["message"]) == ("shop.orders", "half way")
    assert fields["task_id"] == work.message.identity.task_id


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("extra", [{"work": "night shift"}, {"duration": "3 s"}, {"duration": None}], ids=str)
@pytest.mark.usefixtures("work")
def test_users_may_log_with_fields_of_any_name(
    capsys: pytest.CaptureFixture[str], log_format: LogFormat, extra: dict[str, Any]
) -> None:
    """A user's own `extra` fields, whatever they are called and hold, do not lose the line."""
    configure_logging(log_format, "info", "host.12.a")
    logger.info("half way", extra=extra)
    written = lines(capsys)
    assert len(written) == 1
    assert "half way" in written[0]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_message_that_is_no_valid_unicode_is_written(log_format: LogFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message with the name of a file that is no valid Unicode is written, with something in its place."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(written, "utf-8", "backslashreplace", write_through=True))
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's would keep the line for its report
    configure_logging(log_format, "info", "host.12.a")
    logger.info("no such file: %s", "a\udcff", extra={WORK_FIELD: work_of(lambda app: None)})
    assert written.getvalue().count(b"\n") == 1
    assert b"no such file: a" in written.getvalue()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_stack_is_written_if_asked_for(capsys: pytest.CaptureFixture[str], log_format: LogFormat) -> None:
    """`stack_info=True` adds the stack to a line, as it does with Python's own formatter."""
    configure_logging(log_format, "info", "host.12.a")
    logger.info("where am I", stack_info=True)
    assert "test_the_stack_is_written_if_asked_for" in "\n".join(lines(capsys))


def decimal_of(text: str) -> int:
    raise ValueError(text)


def test_nothing_in_a_text_line_begins_another(capsys: pytest.CaptureFixture[str]) -> None:
    """What a message, a task's name or an exception holds is escaped; a traceback is indented, and stays readable."""
    configure_logging("text", "info", "host.12.a")
    forged = "2026-01-01 00:00:00.000+00:00 INFO    supervisor: forged"
    text = f"no such article\n{forged}\r{forged}\x1b[2K"
    try:
        decimal_of(text)
    except ValueError:
        logger.exception("it failed: %s\n%s", text, forged)
    first, *others = lines(capsys)
    assert "it failed: no such article\\n2026" in first
    assert all(line.startswith("    ") for line in others)
    assert others[0] == "    Traceback (most recent call last):"
    assert others[1].startswith('      File "')
    assert others[-1] == f"    {forged}\\r{forged}\\x1b[2K"


def test_a_json_line_is_one_line_for_every_reader(capsys: pytest.CaptureFixture[str]) -> None:
    """Also for those that take other characters than a newline for the end of a line."""
    configure_logging("json", "info", "host.12.a")
    logger.info("no\u2028such\x85article\u202e")
    assert json_line(capsys)["message"] == "no\u2028such\x85article\u202e"


def test_the_reason_of_a_failed_start_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """A headline with a traceback below it is shown as that."""
    configure_logging("text", "info", "host.12.a")
    log_start_failure(logger, "cannot import shop, so no task was taken:\n\nTraceback:\n  File\nValueError: no")
    first, *others = lines(capsys)
    assert first.endswith("host.12.a: cannot import shop, so no task was taken:")
    assert others == ["    Traceback:", "      File", "    ValueError: no"]


def test_handlers_that_were_there_stay(capsys: pytest.CaptureFixture[str]) -> None:
    """A handler of the root logger that is not ours, an instrumentation's, is kept when logging is configured."""
    other = logging.NullHandler()
    logging.getLogger().addHandler(other)
    for _ in range(2):
        configure_logging("text", "info", "host.12.a")
    logger.info("once")
    assert len(lines(capsys)) == 1
    assert other in logging.getLogger().handlers
