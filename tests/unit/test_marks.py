"""What a task process marks, as its supervisor reads it from the same memory."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from limetask import ids
from limetask_worker.marks import Held, Marks, open_memory

MOST = 4096


@pytest.fixture
def both() -> Iterator[tuple[Marks, Marks]]:
    """The marks as the task process has them, and as its supervisor has."""
    descriptor = open_memory()
    process, supervisor = Marks(descriptor), Marks(descriptor)
    os.close(descriptor)
    yield process, supervisor
    process.close()
    supervisor.close()


def test_a_task_is_in_hand_until_it_is_released(both: tuple[Marks, Marks]) -> None:
    """The supervisor sees which attempt at which task is held, when it begins, and when it is over."""
    process, supervisor = both
    first, second = ids.new_task_id("shop"), ids.new_task_id("shop")
    mark = process.hold(first, 1)
    process.hold(second, 7)
    assert not mark.has_begun
    assert supervisor.read() == [Held(first, 1, False), Held(second, 7, False)]
    mark.begin()
    assert mark.has_begun
    assert supervisor.read() == [Held(first, 1, True), Held(second, 7, False)]
    mark.release()
    mark.release()
    assert supervisor.read() == [Held(second, 7, False)]


def test_a_released_place_is_used_again(both: tuple[Marks, Marks]) -> None:
    """A process marks any number of tasks, one after the other, and nothing of one is left in the next."""
    process, supervisor = both
    for attempt in range(1, 3 * MOST):
        task_id = ids.new_task_id("shop")
        mark = process.hold(task_id, attempt)
        assert supervisor.read() == [Held(task_id, attempt, False)]
        mark.begin(time_limit=0.0)
        mark.release()


def test_an_exceeded_limit_is_told_after_the_grace(both: tuple[Marks, Marks]) -> None:
    """A body that runs for longer than it may is told with its limit, unless its process has cut it off."""
    process, supervisor = both
    task_id = ids.new_task_id("shop")
    mark = process.hold(task_id, 1)
    mark.begin(time_limit=-1.5)
    assert supervisor.read(grace=60.0) == [Held(task_id, 1, True)]
    assert supervisor.read(grace=1.0) == [Held(task_id, 1, True, exceeded=-1.5)]
    mark.lift_time_limit()
    assert supervisor.read() == [Held(task_id, 1, True)]


def test_a_body_that_outlives_its_task_leaves_the_next_one_alone(both: tuple[Marks, Marks]) -> None:
    """What was cut off may end much later, when its place is another task's."""
    process, supervisor = both
    cut_off = process.hold(ids.new_task_id("shop"), 1)
    cut_off.begin(time_limit=-1.0)
    cut_off.release()
    task_id = ids.new_task_id("shop")
    process.hold(task_id, 1).begin(time_limit=-1.5)
    cut_off.lift_time_limit()
    assert supervisor.read() == [Held(task_id, 1, True, exceeded=-1.5)]


def test_the_event_of_an_end_is_there_until_the_task_is_released(both: tuple[Marks, Marks]) -> None:
    """Each in its own room; the next task in the same place has none, and what has no room is refused."""
    process, supervisor = both
    first, second = (process.hold(ids.new_task_id("shop"), 1) for _ in range(2))
    assert supervisor.ends() == []
    assert first.note_end(b"x" * 1024)
    assert not second.note_end(b"y" * 1025)
    assert second.note_end(b"{}")
    assert supervisor.ends() == [b"x" * 1024, b"{}"]
    second.forget_end()
    assert supervisor.ends() == [b"x" * 1024]
    first.release()
    assert supervisor.ends() == []
    assert not first.note_end(b"late")
    process.hold(ids.new_task_id("shop"), 1)
    assert supervisor.ends() == []


def test_ends_are_noted_in_the_last_place_and_told_when_marks_are_not(both: tuple[Marks, Marks]) -> None:
    """With too much at a time in hand; a task without a place has no room for its end."""
    process, supervisor = both
    marks = [process.hold(ids.new_task_id("shop"), 1) for _ in range(MOST)]
    assert marks[-1].note_end(b"z" * 1024)
    assert not process.hold(ids.new_task_id("shop"), 1).note_end(b"{}")
    assert supervisor.read() is None
    assert supervisor.ends() == [b"z" * 1024]


def test_too_much_at_a_time_is_told_as_unknown(both: tuple[Marks, Marks]) -> None:
    """With more tasks than places nothing can be said of any, for good; the process goes on all the same."""
    process, supervisor = both
    marks = [process.hold(ids.new_task_id("shop"), 1) for _ in range(MOST)]
    held = supervisor.read()
    assert held is not None
    assert len(held) == MOST
    one_too_many = process.hold(ids.new_task_id("shop"), 1)
    one_too_many.begin()
    assert one_too_many.has_begun
    for mark in (*marks, one_too_many):
        mark.release()
    assert supervisor.read() is None
