"""Wait for a condition, with a deadline, instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T | Literal[False] | None], timeout: float = 20.0, what: str = "") -> T:
    """Return the condition's first true value; fail when `timeout` seconds are over."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or condition}")
        time.sleep(0.02)
