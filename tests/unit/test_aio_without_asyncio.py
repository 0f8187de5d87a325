"""`limetask.aio` where no asyncio loop runs: in plain code, or under another library such as trio."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from limetask import Status, TaskStatus, UnusableHereError, aio

PENDING = TaskStatus("id-1", Status.PENDING, app="acme")


@pytest.mark.parametrize(
    "call",
    [
        lambda: aio.send_task("a.task", "acme"),
        lambda: aio.send_tasks([]),
        lambda: aio.get_status("id-1", "acme"),
        lambda: aio.wait(PENDING, 1),
        lambda: aio.wait_all([PENDING], 1),
        lambda: aio.publish_event("acme", "shop.order.paid.v1"),
        aio.close,
    ],
)
def test_a_coroutine_says_what_it_needs(call: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Whoever runs it: the error names asyncio, and what to do under trio."""
    with pytest.raises(UnusableHereError, match=r"needs a running asyncio loop.*trio\.to_thread"):
        call().send(None)


def test_a_subscription_says_what_it_needs() -> None:
    """It is made on the loop that reads it."""
    with pytest.raises(UnusableHereError, match="needs a running asyncio loop"):
        aio.subscribe("core.task.#")
