"""One thread that calls what is due."""

from __future__ import annotations

import os
import queue
import random
import threading
import time
from functools import partial

import pytest

from limetask import SoftTimeLimitExceeded
from limetask_worker.deadlines import Deadlines
from limetask_worker.soft_limit import soft_limit_in_thread

DEADLINE = 20.0


@pytest.fixture
def deadlines() -> Deadlines:
    """Deadlines whose thread runs."""
    made = Deadlines()
    made.start()
    return made


def work_until_interrupted(seconds: float) -> None:
    until = time.monotonic() + DEADLINE
    with soft_limit_in_thread(seconds):
        while time.monotonic() < until:
            pass


def test_all_are_called_in_their_order_and_not_before(deadlines: Deadlines) -> None:
    """However they were added: also what is due before everything that waits already."""
    called: queue.Queue[tuple[float, float]] = queue.Queue()
    begun = time.monotonic()
    delays = [0.3, 0.01, 0.2, 0.1, 0.0, 0.2]
    for delay in delays:
        deadlines.add(delay, partial(lambda delay: called.put((delay, time.monotonic() - begun)), delay))
    seen = [called.get(timeout=DEADLINE) for _ in delays]
    assert [delay for delay, _ in seen] == sorted(delays)
    assert all(after >= delay for delay, after in seen)


def test_what_is_cancelled_is_not_called_nor_kept(deadlines: Deadlines) -> None:
    """Of very many that are far away and cancelled, few are kept; the others are called all the same."""
    called: queue.Queue[int] = queue.Queue()
    chance = random.Random(1)
    kept = [deadlines.add(3600.0, lambda: None) for _ in range(10)]
    for number in range(20_000):
        deadlines.cancel(deadlines.add(chance.uniform(1800.0, 3600.0), partial(called.put, number)))
    assert len(deadlines._waiting) < 2100
    assert all(one in deadlines._waiting for one in kept)
    deadlines.cancel(deadlines.add(0.05, lambda: called.put(-1)))
    deadlines.add(0.1, lambda: called.put(-2))
    assert called.get(timeout=DEADLINE) == -2


def test_many_threads_may_use_it_at_once(deadlines: Deadlines) -> None:
    """What some cancel and others add is not mixed up."""
    called: queue.Queue[int] = queue.Queue()

    def use(number: int) -> None:
        for _ in range(500):
            deadlines.cancel(deadlines.add(0.0005, lambda: None))
        deadlines.add(0.01, lambda: called.put(number))

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    assert sorted(called.get(timeout=DEADLINE) for _ in threads) == [*range(8)]


def test_a_body_needs_no_thread_for_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit of processes a task with a soft limit runs as any other, and the limit holds."""
    with soft_limit_in_thread(3600.0):
        pass  # the thread of this process runs now

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with soft_limit_in_thread(3600.0):
        pass
    with pytest.raises(SoftTimeLimitExceeded):
        work_until_interrupted(0.01)


def test_a_forked_process_may_leave_a_block_with_a_limit(deadlines: Deadlines) -> None:
    """Whatever another thread held when it was forked."""
    deadline = deadlines.add(3600.0, lambda: None)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with deadlines._changed:
            held.set()
            done.wait(DEADLINE)

    threading.Thread(target=hold).start()
    held.wait(DEADLINE)
    child = os.fork()
    if child == 0:
        deadlines.cancel(deadline)
        os._exit(0)
    done.set()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
