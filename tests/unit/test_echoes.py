"""Which of its own messages prove that a recorder hears the others."""

from __future__ import annotations

import asyncio

import pytest

from limetask_worker import echoes as echoes_module
from limetask_worker.echoes import Echoes


@pytest.fixture(autouse=True)
def in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A confirm that does not come is not waited for."""
    monkeypatch.setattr(echoes_module, "_CONFIRM_SECONDS", 0.01)


def test_one_that_the_broker_took_in_time_counts_whenever_it_is_heard() -> None:
    """The queue may be long; others that were sent later make no difference."""

    async def main() -> None:
        echoes = Echoes()
        for sent_at in (1.0, 2.0):
            echoes.note_sent(sent_at)
            echoes.note_taken(sent_at)
        echoes.note_sent(3.0)
        assert [await echoes.was_taken_in_time(sent_at) for sent_at in (1.0, 2.0, 3.0)] == [True, True, False]

    asyncio.run(main())


def test_one_that_the_broker_kept_waiting_does_not_count() -> None:
    """When it is heard the next one is on its way; and what this process has not sent like this proves nothing."""

    async def main() -> None:
        echoes = Echoes()
        echoes.note_sent(1.0)
        echoes.note_sent(2.0)
        echoes.note_taken(2.0)
        assert [await echoes.was_taken_in_time(sent_at) for sent_at in (1.0, 1.5, 2.0)] == [False, False, True]

    asyncio.run(main())


def test_a_confirm_just_behind_the_echo_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """They come by two connections."""
    monkeypatch.setattr(echoes_module, "_CONFIRM_SECONDS", 10.0)

    async def main() -> None:
        echoes = Echoes()
        echoes.note_sent(1.0)
        asyncio.get_running_loop().call_later(0.01, echoes.note_taken, 1.0)
        assert await echoes.was_taken_in_time(1.0)

    asyncio.run(main())
