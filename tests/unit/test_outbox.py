"""The ends that a process could not report, as its supervisor reads them from the same memory."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from limetask import ids
from limetask.message import Envelope
from limetask_worker.outbox import Outbox, UnreportedEnd, open_outbox


@pytest.fixture
def both() -> Iterator[tuple[Outbox, Outbox]]:
    """The outbox as the task process has it, and as its supervisor has."""
    descriptor = open_outbox()
    process, supervisor = Outbox(descriptor), Outbox(descriptor)
    os.close(descriptor)
    yield process, supervisor
    process.close()
    supervisor.close()


def end(body: bytes = b'{"status":"SUCCESS"}', attempt: int = 1) -> UnreportedEnd:
    envelope = Envelope(body, "application/json", message_id="m", kind="completion")
    return UnreportedEnd(ids.new_task_id("shop"), attempt, "core.task.pkg.add.success.v1", envelope)


def test_what_waits_is_read_as_it_was_kept(both: tuple[Outbox, Outbox]) -> None:
    """Ends of any size, in their order; to keep one twice changes nothing."""
    process, supervisor = both
    assert supervisor.read() == []
    ends = [end(), end(b"x" * 1_000_000, attempt=2**31 - 1), end(b"")]
    for one in ends:
        process.keep(one)
        process.keep(one)
    assert supervisor.read() == ends


def test_what_is_replaced_is_not_read(both: tuple[Outbox, Outbox]) -> None:
    """The new end of the attempt waits instead; what was never kept is not kept by that."""
    process, supervisor = both
    first, other = end(b"x" * 1000), end()
    shorter = UnreportedEnd(first.task_id, 1, "core.task.pkg.add.failure.v1", Envelope(b"{}", "application/json", "n"))
    for one in (first, other):
        process.keep(one)
    process.replace(shorter)
    process.replace(end())
    assert [one.envelope.body for one in supervisor.read()] == [other.envelope.body, b"{}"]
    process.forget(other.task_id, 1)
    process.forget(first.task_id, 1)
    assert supervisor.read() == []
    assert process.is_empty


def test_what_is_confirmed_is_not_read(both: tuple[Outbox, Outbox]) -> None:
    """Confirms come in any order, also for what was never kept; when nothing waits the memory is free again."""
    process, supervisor = both
    first, second, third = end(), end(), end()
    for one in (first, second, third):
        process.keep(one)
    process.forget(second.task_id, 1)
    process.forget(second.task_id, 1)
    process.forget(ids.new_task_id("shop"), 1)
    assert supervisor.read() == [first, third]
    process.forget(first.task_id, 1)
    process.forget(third.task_id, 1)
    assert supervisor.read() == []
    process.keep(second)
    assert supervisor.read() == [second]


def test_an_end_that_was_not_written_whole_is_left_out(both: tuple[Outbox, Outbox]) -> None:
    """The process died while it kept the last one: those before it are there."""
    process, supervisor = both
    first, second = end(), end()
    process.keep(first)
    size = process._size
    process.keep(second)
    os.pwrite(process._descriptor, b"\0", size)
    assert supervisor.read() == [first]
    os.truncate(process._descriptor, size + 4)
    assert supervisor.read() == [first]
