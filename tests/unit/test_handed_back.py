"""What the recorder remembers of tasks that their workers have let go of."""

from __future__ import annotations

import pytest

from limetask_worker import handed_back
from limetask_worker.handed_back import HandedBack
from limetask_worker.timings import FORMER_HOLDER_SECONDS, SURE_SECONDS, UNNOTICED_LAG_SECONDS


def test_only_the_newest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory has a bound, however many there are."""
    monkeypatch.setattr(handed_back, "_MOST", 3)
    memory = HandedBack()
    memory.note([("a", 1), ("b", 1)])
    assert ("a", 1) in memory
    assert ("a", 2) not in memory
    memory.note([("c", 1), ("d", 1)])
    assert [(name, 1) in memory for name in "abcd"] == [False, True, True, True]


def test_a_claim_waits_for_longer_than_a_start_may_take() -> None:
    """Else a worker that got the message as new could begin it after another had been told to run it."""
    assert FORMER_HOLDER_SECONDS > UNNOTICED_LAG_SECONDS + SURE_SECONDS
