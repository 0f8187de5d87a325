"""What is told of a consumer that the broker has cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from limetask.amqp import cancelling
from limetask.amqp.cancelling import why_cancelled
from limetask.errors import ConnectionLostError


async def there() -> tuple[int, int]:
    return 3, 0


async def gone() -> None:
    return None


async def lost() -> None:
    raise ConnectionLostError("gone with the connection")


async def silent() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("finding", "deleted", "timed_out"),
    [(there, False, True), (gone, True, False), (lost, True, True), (silent, True, True)],
)
def test_it_is_told_why_as_far_as_that_is_known(
    finding: Callable[[], Coroutine[None, None, object]],
    deleted: bool,
    timed_out: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A queue that is there was not deleted; if nobody can say, both causes are told."""
    monkeypatch.setattr(cancelling, "_LOOK_SECONDS", 0.01)
    told = str(asyncio.run(why_cancelled("a.queue", finding())))
    assert told.startswith("the broker cancelled the consumer of a.queue: ")
    assert ("was deleted" in told, "consumer timeout" in told) == (deleted, timed_out)
