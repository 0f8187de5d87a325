"""How fast something comes, by a clock that is set by hand."""

from __future__ import annotations

from collections.abc import Iterable

from limetask_worker.rate import Rate


def rate_after(notes: Iterable[tuple[float, int]]) -> float:
    """The rate after so many have come at these seconds."""
    now = 0.0
    rate = Rate(lambda: now)
    for moment, count in notes:
        now = moment
        rate.note(count)
    return rate.per_second


def test_nothing_is_fast_that_has_just_begun() -> None:
    """Many at once, after nothing, are no rate yet."""
    assert rate_after([]) == 0
    assert rate_after([(0.01, 1000), (0.05, 1000)]) == 0
    assert rate_after([(100.0, 10)]) == 0.1


def test_it_is_that_of_the_last_moments() -> None:
    """Steady notes give their rate, whatever was before."""
    steady = [(0.25 + number / 64, 3) for number in range(64)]
    assert rate_after(steady) == 3 * 64
    assert rate_after([(0.125, 100_000), *steady]) == 3 * 64
