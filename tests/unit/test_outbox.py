"""The ends that a process could not report, as its supervisor reads them from the same memory."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from limetask_worker.outbox import Outbox, open_outbox


@pytest.fixture
def both() -> Iterator[tuple[Outbox, Outbox]]:
    """The outbox as the task process has it, and as its supervisor has."""
    descriptor = open_outbox()
    process, supervisor = Outbox(descriptor), Outbox(descriptor)
    os.close(descriptor)
    yield process, supervisor
    process.close()
    supervisor.close()


FIRST, SECOND, THIRD = (("a", 1), ("a", 2), ("b", 1))


def test_what_waits_is_read_as_it_was_kept(both: tuple[Outbox, Outbox]) -> None:
    """Events of any size, in their order."""
    process, supervisor = both
    assert supervisor.read() == []
    events = [b"small", b"x" * 1_000_000, b""]
    for number, event in enumerate(events):
        process.keep(("a", number), event)
    assert supervisor.read() == events


def test_what_is_replaced_is_not_read(both: tuple[Outbox, Outbox]) -> None:
    """The new event of the attempt waits instead, also if it is the only one."""
    process, supervisor = both
    process.keep(FIRST, b"x" * 1000)
    process.keep(FIRST, b"shorter")
    assert supervisor.read() == [b"shorter"]
    process.keep(SECOND, b"other")
    process.keep(FIRST, b"x" * 100_000)
    assert sorted(supervisor.read()) == [b"other", b"x" * 100_000]
    process.forget(SECOND)
    process.forget(FIRST)
    assert supervisor.read() == []
    assert process.is_empty


def test_what_is_confirmed_is_not_read(both: tuple[Outbox, Outbox]) -> None:
    """Confirms come in any order, also for what was never kept; when nothing waits the memory is given back."""
    process, supervisor = both
    for key, event in ((FIRST, b"first"), (SECOND, b"second"), (THIRD, b"third")):
        process.keep(key, event)
    process.forget(SECOND)
    process.forget(SECOND)
    process.forget(("c", 1))
    assert supervisor.read() == [b"first", b"third"]
    process.forget(FIRST)
    process.forget(THIRD)
    assert supervisor.read() == []
    assert os.fstat(process._descriptor).st_size == 0
    process.keep(SECOND, b"again")
    assert supervisor.read() == [b"again"]


def test_memory_is_used_again_while_others_wait(both: tuple[Outbox, Outbox]) -> None:
    """A process that is never without an end on its way does not grow."""
    process, supervisor = both
    process.keep(FIRST, b"f" * 5000)
    for number in range(200):
        process.keep(("b", number), b"x" * (5000 + number))
        if number:
            process.forget(("b", number - 1))
        assert supervisor.read()[0] == b"f" * 5000
        assert len(supervisor.read()) == 2
    assert os.fstat(process._descriptor).st_size < 50_000


def test_an_event_that_was_not_written_whole_is_left_out(both: tuple[Outbox, Outbox]) -> None:
    """The process died while it kept the last one: those before it are there."""
    process, supervisor = both
    process.keep(FIRST, b"first")
    size = process._size
    process.keep(SECOND, b"second")
    os.pwrite(process._descriptor, b"\0", size)
    assert supervisor.read() == [b"first"]
    os.truncate(process._descriptor, size + 4)
    assert supervisor.read() == [b"first"]
