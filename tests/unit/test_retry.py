"""How often something is tried again, and after how long."""

from __future__ import annotations

import math
from typing import Any

import pytest

from limetask import DeclarationError, Retry
from limetask.delays import MAX_DELAY_SECONDS


def delays(retry: Retry, count: int) -> list[float | None]:
    return [retry.delay_before(number) for number in range(1, count + 1)]


@pytest.mark.parametrize(
    ("retry", "expected"),
    [
        (Retry(), [1, 2, 4, 8, 16, None, None]),
        (Retry(times=0), [None, None]),
        (Retry(times=3, delay=10), [10, 20, 40, None]),
        (Retry(times=3, delay=0), [0, 0, 0, None]),
        (Retry(times=3, delay=5, factor=1), [5, 5, 5, None]),
        (Retry(times=4, delay=10, factor=10, longest=500), [10, 100, 500, 500, None]),
        (Retry(times=2, delay=100, longest=7), [7, 7, None]),
        (Retry(times=3, delay=0.1, factor=1.5), [0.1, pytest.approx(0.15), pytest.approx(0.225), None]),
    ],
    ids=str,
)
def test_the_delay_grows_up_to_the_longest(retry: Retry, expected: list[float | None]) -> None:
    """Each delay is `factor` times the one before, never more than `longest`, and after `times` there is none."""
    assert delays(retry, len(expected)) == expected


@pytest.mark.parametrize("factor", [2, 2.0, 1e300])
@pytest.mark.parametrize("delay", [1, 0.5, 1e-300, 10**400])
def test_no_number_of_retries_is_too_much(delay: float, factor: float) -> None:
    """The millionth delay is `longest`, whatever the arithmetic would say."""
    assert Retry(times=10**9, delay=delay, factor=factor).delay_before(10**6) == 3600


def test_no_delay_stays_none() -> None:
    """Who wants no pause gets none, however often it has been tried."""
    assert Retry(times=10**9, delay=0).delay_before(10**6) == 0


@pytest.mark.parametrize("times", [-1, 1.0, "5", None, True, math.inf])
def test_times_is_a_whole_number(times: Any) -> None:
    """A number of times that is none is refused by its name and value."""
    with pytest.raises(DeclarationError) as caught:
        Retry(times=times)
    assert str(caught.value) == f"Retry: times is a whole number from 0, not {times!r}"


@pytest.mark.parametrize("value", [-1, -0.001, math.nan, math.inf, "5", None, True, [1], 1j])
@pytest.mark.parametrize(("option", "least"), [("delay", 0), ("factor", 1), ("longest", 0)])
def test_the_others_are_numbers(option: str, least: int, value: Any) -> None:
    """A delay, factor or limit that is no finite number, or too small, is refused by its name and value."""
    with pytest.raises(DeclarationError) as caught:
        Retry(**{option: value})
    assert str(caught.value) == f"Retry: {option} is a number from {least}, not {value!r}"


def test_a_delay_does_not_shrink() -> None:
    """A factor below 1 is refused: the first delay is the shortest."""
    with pytest.raises(DeclarationError, match=r"factor is a number from 1, not 0\.5"):
        Retry(factor=0.5)


def test_the_longest_delay_is_one_that_the_broker_holds() -> None:
    """What the delay levels cannot hold is refused where it is declared, not when it is due."""
    assert Retry(longest=MAX_DELAY_SECONDS, delay=1e9).delay_before(1) == MAX_DELAY_SECONDS
    for seconds in (MAX_DELAY_SECONDS + 0.5, 10**400):
        with pytest.raises(DeclarationError, match=r"longest may be 16777215 seconds \(194 days\)"):
            Retry(longest=seconds)


def test_a_retry_is_a_value() -> None:
    """Equal ones are equal, and none can be changed."""
    assert Retry(3) == Retry(times=3)
    with pytest.raises(AttributeError):
        Retry().times = 7  # type: ignore[misc]


@pytest.mark.parametrize(
    ("option", "value"),
    [("times", -(10**5000)), ("delay", -(10**5000)), ("longest", 10**5000)],
    ids=["times", "delay", "longest"],
)
def test_a_number_that_cannot_be_written_is_refused_all_the_same(option: str, value: Any) -> None:
    """Python refuses to write numbers of thousands of digits, and the error must not fail over that."""
    with pytest.raises(DeclarationError, match=f"Retry: {option} .* not a whole number of thousands of digits"):
        Retry(**{option: value})
