"""The client's own thread."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from limetask import UnusableHereError
from limetask.loop_thread import LoopThread


class CallingHandler(logging.Handler):
    """Calls a function for each line."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__(logging.DEBUG)
        self._call = call

    def emit(self, record: logging.LogRecord) -> None:
        self._call()


@contextmanager
def logging_to(handler: logging.Handler) -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_logging_handler_that_starts_it_is_told() -> None:
    """What is logged while it starts would start it again, and again: the handler is refused, with what to do."""
    with (
        logging_to(CallingHandler(LoopThread)),
        pytest.raises(UnusableHereError, match=r"while its thread starts: .*QueueHandler"),
    ):
        LoopThread()
    LoopThread().stop()


def test_what_interrupts_its_start_once_may_start_it() -> None:
    """As a signal handler that sends."""
    inner: list[LoopThread] = []

    handler = CallingHandler(lambda: inner.append(LoopThread()))
    calls = iter([True])
    handler.addFilter(lambda record: next(calls, False))
    with logging_to(handler):
        LoopThread().stop()
    inner[0].stop()


def test_a_handler_that_bears_errors_is_no_obstacle() -> None:
    """A handler whose errors logging swallows does not keep a call from being answered."""

    def start() -> None:
        try:
            LoopThread().stop()
        except UnusableHereError:
            refused.append(True)

    refused: list[bool] = []
    with logging_to(CallingHandler(start)):
        LoopThread().stop()
    assert refused
