"""Log lines that another thread writes."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import logging.config
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from limetask import log_thread as module
from limetask.log_thread import LogThread
from limetask.logs import careful_logger
from limetask.threads import note_own_thread
from limetask_worker.log_thread import IDENTITY_FIELD, WORK_FIELD, hand_over_lines
from tests.unit.works import work_of
from tests.waiting import eventually

customer: contextvars.ContextVar[str] = contextvars.ContextVar("customer", default="nobody")


class Noting(logging.Handler):
    """Keeps what it is given, with the thread and the context in which it is."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.seen: list[tuple[str, str]] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def emit(self, record: logging.LogRecord) -> None:
        self.go_on.wait(10)
        self.records.append(record)
        self.seen.append((threading.current_thread().name, customer.get()))


@pytest.fixture
def thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[LogThread]:
    """One that is at work until the test is over."""
    made = LogThread()
    monkeypatch.setattr(module, "log_thread", made)
    made.start()
    yield made
    made.flush(10)
    made.stop()


@pytest.fixture
def logger() -> logging.Logger:
    made = logging.getLogger(f"limetask_worker.test{id(object())}")
    made.propagate = False
    made.setLevel(logging.INFO)
    hand_over_lines()
    return made


@pytest.fixture
def noting(logger: logging.Logger) -> Iterator[Noting]:
    handler = Noting()
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def in_a_loop(log: Callable[[], None]) -> None:
    """Log something where an asyncio loop runs."""

    async def run() -> None:
        log()

    asyncio.run(run())


def in_own_thread(log: Callable[[], None]) -> None:
    """Log something in a thread that limetask waits for."""

    def run() -> None:
        note_own_thread()
        log()

    own = threading.Thread(target=run, name="own")
    own.start()
    own.join()


def test_another_thread_writes_what_a_loop_logs(thread: LogThread, logger: logging.Logger, noting: Noting) -> None:
    """A line is written elsewhere, as it was logged here: place, thread, fields, exception and context variables."""

    def log() -> None:
        customer.set("acme")
        try:
            int("one")
        except ValueError:
            logger.exception("it went %s", "wrong", extra={"shelf": 3})

    in_a_loop(log)
    thread.flush(10)
    [record], [seen] = noting.records, noting.seen
    assert seen == ("limetask log", "acme")
    assert (record.getMessage(), record.levelname, record.threadName) == ("it went wrong", "ERROR", "MainThread")
    assert (record.pathname, record.funcName, vars(record)["shelf"]) == (__file__, "log", 3)
    assert record.exc_info is not None
    assert record.exc_info[0] is ValueError


def test_other_threads_write_their_own_lines(thread: LogThread, logger: logging.Logger, noting: Noting) -> None:
    """What is logged where no loop runs, in a body's thread or at an import, is written there and then."""
    body = threading.Thread(target=logger.info, args=("half way",), name="body")
    body.start()
    body.join()
    assert noting.seen == [("body", "nobody")]

    def log() -> None:
        logger.info("here")

    body = threading.Thread(target=log)
    body.start()
    body.join()
    assert (noting.records[1].funcName, noting.records[1].pathname) == ("log", __file__)


def test_too_many_lines_are_dropped_and_counted(
    thread: LogThread, logger: logging.Logger, noting: Noting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a handler stands still lines wait, as many as there may; then it is said how many were dropped."""
    monkeypatch.setattr(module, "_MAX_LINES", 20)
    monkeypatch.setattr(module, "_MAX_EXCEPTIONS", 5)
    told = Noting()
    monkeypatch.setattr(module, "logger", logging.Logger("limetask_worker.told"))
    module.logger.addHandler(told)
    noting.go_on.clear()

    def log() -> None:
        for number in range(10):
            logger.error("error %d", number, exc_info=ValueError(number))
        for number in range(30):
            logger.info("line %d", number)

    in_a_loop(log)
    noting.go_on.set()
    thread.flush(10)
    kept = [f"error {number}" for number in range(5)] + [f"line {number}" for number in range(15)]
    assert [record.getMessage() for record in noting.records] == kept
    [said] = eventually(lambda: told.records)
    assert said.getMessage().startswith("20 log lines were dropped")
    in_a_loop(lambda: logger.info("and on it goes"))
    thread.flush(10)
    assert noting.records[-1].getMessage() == "and on it goes"


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(3)])
def test_what_a_filter_raises_ends_nothing(
    thread: LogThread,
    logger: logging.Logger,
    noting: Noting,
    error: BaseException,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A user's filter that raises loses its own line, which is told on standard error, and no other."""

    def broken(record: logging.LogRecord) -> bool:
        if record.getMessage() == "first":
            raise error
        return True

    logger.addFilter(broken)

    def log() -> None:
        logger.info("first")
        logger.info("second")

    in_a_loop(log)
    thread.flush(10)
    assert [record.getMessage() for record in noting.records] == ["second"]
    assert type(error).__name__ in capsys.readouterr().err


def test_a_line_that_waits_does_not_keep_its_tasks_message(
    thread: LogThread, logger: logging.Logger, noting: Noting
) -> None:
    """Of the task that a line is about only its identity is kept: a message may be large."""
    work = work_of(lambda app: None)
    in_a_loop(lambda: logger.info("succeeded", extra={WORK_FIELD: work}))
    thread.flush(10)
    fields = vars(noting.records[0])
    assert fields[IDENTITY_FIELD] == work.message.identity
    assert WORK_FIELD not in fields


def test_a_stopped_one_writes_nothing_more(thread: LogThread, logger: logging.Logger, noting: Noting) -> None:
    """After `stop`, as in a forked child, each thread writes for itself."""
    thread.stop()
    in_a_loop(lambda: logger.info("on my own"))
    assert noting.seen == [("MainThread", "nobody")]


@pytest.mark.parametrize(
    "disable",
    [
        lambda: logging.config.dictConfig({"version": 1}),
        lambda: setattr(logging.getLogger("limetask_worker.child"), "disabled", True),
    ],
)
@pytest.mark.usefixtures("_restored_logging")
def test_limetasks_loggers_cannot_be_disabled(disable: Callable[[], Any]) -> None:
    """What `dictConfig` does by default to loggers that it does not know does nothing to limetask's."""
    own = logging.getLogger("limetask_worker.child")
    hand_over_lines()
    disable()
    assert own.isEnabledFor(logging.ERROR)


def test_a_logger_that_is_made_later_is_handed_over_too(thread: LogThread) -> None:
    """As that of a module which a body imports first."""
    hand_over_lines()
    made = careful_logger(f"limetask.test{id(object())}")
    noting = Noting()
    made.logger.addHandler(noting)
    made.logger.disabled = True
    in_a_loop(lambda: made.warning("lost"))
    thread.flush(10)
    assert noting.seen == [("limetask log", "nobody")]
    assert (noting.records[0].funcName, noting.records[0].pathname) == ("<lambda>", __file__)


def test_where_no_thread_can_be_started_lines_are_written_at_once(
    monkeypatch: pytest.MonkeyPatch, logger: logging.Logger, noting: Noting
) -> None:
    """At the end of a program Python starts no threads any more."""

    def start_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(module, "start_thread", start_thread)
    monkeypatch.setattr(module, "log_thread", LogThread())
    in_own_thread(lambda: logger.info("the end"))
    assert noting.seen == [("own", "nobody")]


def test_a_thread_of_limetasks_own_is_served_without_a_start(
    monkeypatch: pytest.MonkeyPatch, logger: logging.Logger, noting: Noting
) -> None:
    """As in a producer: there limetask's thread has its lines written by another, and user's loops write their own."""
    made = LogThread()
    monkeypatch.setattr(module, "log_thread", made)
    in_a_loop(lambda: logger.info("mine"))
    assert noting.seen == [("MainThread", "nobody")]
    in_own_thread(lambda: logger.info("limetask's"))
    made.finish()
    assert noting.seen[1:] == [("limetask log", "nobody")]
    in_own_thread(lambda: logger.info("after the end"))
    assert noting.seen[2:] == [("own", "nobody")]


def test_loggers_of_another_class_are_handed_over_too() -> None:
    """Where somebody has set a class of loggers of their own, limetask's keep what that one does."""

    class Counting(logging.Logger):
        count = 3

    made = Counting("limetask_worker.counting")
    logging.Logger.manager.loggerDict["limetask_worker.counting"] = made
    hand_over_lines()
    made.disabled = True
    assert (made.count, made.disabled) == (3, False)
    del logging.Logger.manager.loggerDict["limetask_worker.counting"]


@pytest.mark.parametrize("name", ["limetask.amqp", "limetask_worker.child", "pika.adapters", "asyncio"])
def test_what_logs_on_loops_is_handed_over(thread: LogThread, name: str) -> None:
    """The lines of limetask, and of the libraries through which its loops run, are all written by the thread."""
    made = logging.getLogger(name)
    hand_over_lines()
    noting = Noting()
    made.addHandler(noting)
    try:
        in_a_loop(lambda: made.critical("lost"))
        thread.flush(10)
    finally:
        made.removeHandler(noting)
    assert noting.seen == [("limetask log", "nobody")]
