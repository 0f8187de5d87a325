"""When a publish counts as left unanswered by the broker."""

from __future__ import annotations

from limetask.amqp.unanswered import Unanswered


def looks(unanswered: Unanswered, *seen: tuple[int | None, int]) -> list[bool]:
    """Look several times; each time the oldest unanswered publish and the newest one are given."""
    return [unanswered.look(oldest, newest, is_blocked=False) for oldest, newest in seen]


def test_a_publish_that_has_waited_for_all_looks_is_found() -> None:
    """It was the newest four looks ago, and is still unanswered, whatever was published since."""
    assert looks(Unanswered(), (5, 5), (5, 9), (5, 20), (5, 21), (5, 30)) == [False, False, False, False, True]


def test_a_broker_that_answers_late_is_left_alone() -> None:
    """As long as what was published a minute ago is answered, others may wait."""
    assert not any(looks(Unanswered(), *[(number, number + 3) for number in range(1, 40, 4)]))


def test_nothing_waits_where_nothing_is_published() -> None:
    """An idle connection is left alone for good."""
    assert not any(looks(Unanswered(), *[(None, 7)] * 10))


def test_time_in_which_the_connection_is_blocked_does_not_count() -> None:
    """A memory alarm may last for hours, and all is answered when it is over."""
    unanswered = Unanswered()
    looks(unanswered, (5, 5), (5, 9), (5, 20), (5, 21))
    assert not unanswered.look(5, 30, is_blocked=True)
    assert looks(unanswered, *[(5, 30)] * 5) == [False, False, False, False, True]
