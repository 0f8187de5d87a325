"""Time limits, fairness between workers, and processes that are replaced in time."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from limetask import Settings, Status, TaskCall, TaskStatus, send_task, send_tasks
from limetask.topology import Names
from tests.broker import channel_to, declare_namespace, subscriber
from tests.waiting import eventually
from tests.worker import Worker

StartWorker = Callable[..., Worker]
WAIT = 20.0


def assert_success(statuses: Iterable[TaskStatus], timeout: float = WAIT) -> None:
    """Wait for the ends of all these tasks."""
    for status in statuses:
        assert status.wait(timeout).status is Status.SUCCESS


def test_a_soft_limit_interrupts_the_body(settings: Settings, start_worker: StartWorker) -> None:
    """SoftTimeLimitExceeded is raised in a function and in a coroutine, which may clean up and return."""
    start_worker(settings, "shop", "--processes", "1")
    spinning = send_task("shop.limited.spin", "acme", 30.0)
    napping = send_task("shop.limited.nap_softly", "acme", 30.0)
    tidy = send_task("shop.limited.tidy_up_in_time", "acme")
    for status in (spinning.wait(WAIT), napping.wait(WAIT)):
        assert status.status is Status.FAILURE
        assert status.error is not None
        assert status.error.type == "SoftTimeLimitExceeded"
    assert tidy.wait(WAIT).result == "tidied up"
    assert send_task("shop.tasks.add", "acme", 1, 2).wait(WAIT).result == 3


def test_a_hard_limit_ends_the_task_and_replaces_its_process(
    settings: Settings, start_worker: StartWorker, tmp_path: Path
) -> None:
    """A body that exceeds its limit is FAILURE at once, early and late; its neighbours end, and others go on."""
    with subscriber(settings.broker_url, settings.namespace) as events:
        worker = start_worker(settings, "shop", "--processes", "1")
        [first] = worker.child_pids()
        neighbour = send_task("shop.tasks.nap", "acme", 3.0)
        early = send_task("shop.limited.sleep", "acme", str(tmp_path / "early"), 60.0)
        late = send_task("shop.limited.sleep_late", "acme", str(tmp_path / "late"), 60.0)
        for status in (early.wait(WAIT), late.wait(WAIT)):
            assert status.status is Status.FAILURE
            assert status.error is not None
            assert (status.error.type, "1 s" in status.error.message) == ("TimeLimitExceeded", True)
        assert neighbour.wait(WAIT).status is Status.SUCCESS
        eventually(lambda: worker.child_pids() not in ([], [first]), WAIT)
        assert send_task("shop.tasks.add", "acme", 1, 2).wait(WAIT).result == 3
        assert len((tmp_path / "late").read_text().splitlines()) == 1  # it was not run again
        assert len(events.wait_for(4)) == 4
    eventually(lambda: early.refresh().is_completed() and late.refresh().is_completed())


def test_what_waits_behind_a_body_without_end_runs_elsewhere(
    settings: Settings, start_worker: StartWorker, tmp_path: Path
) -> None:
    """Tasks that are started ahead when a body is cut off need not wait for its thread, nor exceed a limit there."""
    start_worker(settings, "shop", "--processes", "1", "--slots", "2")
    trace = str(tmp_path / "trace")
    quick = [TaskCall("shop.tasks.add", "acme", (number, 1)) for number in range(100)]
    assert_success(send_tasks(quick))  # others may be started ahead now
    endless = send_task("shop.limited.sleep", "acme", str(tmp_path / "endless"), 60.0)
    eventually(lambda: endless.refresh().status is Status.STARTED)
    soon_cut_off = time.monotonic() + 0.7
    waiting = []
    while time.monotonic() < soon_cut_off:  # what waits for longer than half a second goes back
        waiting.append(send_task("shop.limited.sleep", "acme", trace, 0.0))
    long = send_task("shop.tasks.sleep", "acme", 5.0)  # takes the other slot
    while not endless.refresh().is_completed():
        waiting.append(send_task("shop.limited.sleep", "acme", trace, 0.0))
        waiting.append(send_task("shop.tasks.add", "acme", 1, 2))
    assert_success((*waiting, long))
    runs = [status for status in waiting if status.refresh().result is None]
    assert len(Path(trace).read_text().splitlines()) == len(runs)


def test_a_body_that_holds_up_its_process_is_cut_off_all_the_same(
    settings: Settings, start_worker: StartWorker
) -> None:
    """Where the process cannot end the task itself its supervisor does; what ran beside it is told what it died of."""
    start_worker(settings, "shop", "--processes", "1")
    neighbour = send_task("shop.tasks.nap", "acme", 60.0)
    eventually(lambda: neighbour.refresh().status is Status.STARTED)
    ended = send_task("shop.limited.hold_up", "acme", 60).wait(WAIT)
    assert ended.error is not None
    assert (ended.error.type, "1 s" in ended.error.message) == ("TimeLimitExceeded", True)
    lost = neighbour.wait(WAIT)
    assert lost.error is not None
    assert (lost.error.type, "time limit" in lost.error.message) == ("WorkerLost", True)
    assert send_task("shop.tasks.add", "acme", 1, 2).wait(WAIT).result == 3


def test_a_late_task_without_end_keeps_the_worker_from_starting(settings: Settings, start_worker: StartWorker) -> None:
    """A late task that may run longer than the broker waits for its ack is refused, with what to change."""
    worker = start_worker(settings, "shop", "--processes", "1", ready=False, LIMETASK_CONSUMER_TIMEOUT="1")
    assert worker.process.wait(30) == 1
    assert "shop.limited.sleep_late may run for 1 s" in worker.log
    assert "LIMETASK_CONSUMER_TIMEOUT" in worker.log


def test_a_busy_worker_hoards_nothing(settings: Settings, start_worker: StartWorker, tmp_path: Path) -> None:
    """With all slots of one worker busy, what it had fetched goes to another that is free; afterwards all goes on."""
    start_worker(settings, "shop", "--processes", "1", "--slots", "2", "--roles", "tasks", "--log-level", "debug")
    start_worker(settings, "shop", "--roles", "recorder")
    busy = [send_task("shop.tasks.hold", "acme", str(tmp_path / "trace")) for _ in range(2)]
    eventually(lambda: all(status.refresh().status is Status.STARTED for status in busy))
    quick = [send_task("shop.tasks.add", "acme", number, 1) for number in range(20)]
    start_worker(settings, "shop", "--processes", "1", "--slots", "2", "--roles", "tasks")
    assert_success(quick)
    (tmp_path / "trace.release").touch()
    assert_success(busy)
    later = [send_task("shop.tasks.add", "acme", number, 2) for number in range(50)]
    assert all(status.wait(WAIT).status is Status.SUCCESS for status in later)


def test_what_was_started_ahead_does_not_wait_for_long_bodies(
    settings: Settings, start_worker: StartWorker, tmp_path: Path
) -> None:
    """Short tasks let others be started ahead; when long ones take all slots then, another worker runs those."""
    start_worker(settings, "shop", "--processes", "1", "--slots", "2", "--roles", "tasks")
    start_worker(settings, "shop", "--roles", "recorder")
    trace = str(tmp_path / "trace")
    short = [TaskCall("shop.tasks.add", "acme", (number, 1)) for number in range(400)]
    long = [TaskCall("shop.tasks.hold", "acme", (trace,)) for _ in range(2)]
    statuses = send_tasks([*short[:300], *long, *short[300:]])
    held = statuses[300:302]
    eventually(lambda: all(status.refresh().status is Status.STARTED for status in held))
    start_worker(settings, "shop", "--processes", "1", "--slots", "2", "--roles", "tasks")
    assert_success((*statuses[:300], *statuses[302:]))
    assert [status.refresh().status for status in held] == [Status.STARTED] * 2
    (tmp_path / "trace.release").touch()
    assert_success(held)


def test_what_was_claimed_does_not_wait_for_long_bodies(
    settings: Settings, start_worker: StartWorker, tmp_path: Path
) -> None:
    """What was delivered before goes back as well, and counts as not started, if long tasks take all slots."""
    declare_namespace(settings.broker_url, settings.namespace)
    held = [send_task("shop.tasks.hold", "acme", str(tmp_path / "trace")) for _ in range(2)]
    quick = [send_task("shop.tasks.hold_late", "acme", str(tmp_path / "late"), 0.0) for _ in range(20)]
    with channel_to(settings.broker_url) as channel:  # closing it returns the messages
        for _ in (*held, *quick):
            channel.basic_get(Names(settings.namespace).task_queue("default"))
    start_worker(settings, "shop", "--roles", "recorder")
    start_worker(settings, "shop", "--processes", "1", "--slots", "2", "--roles", "tasks")
    eventually(lambda: all(status.refresh().status is Status.STARTED for status in held))
    start_worker(settings, "shop", "--processes", "1", "--slots", "2", "--roles", "tasks")
    assert_success(quick)
    (tmp_path / "trace.release").touch()
    assert_success(held)


def test_long_tasks_are_pulled_one_by_one(settings: Settings, start_worker: StartWorker) -> None:
    """A worker whose slots are always busy runs all there is, from all queues, and is quick again afterwards."""
    start_worker(settings, "shop", "--processes", "1", "--slots", "2", "--log-level", "debug")
    long = [send_task("shop.tasks.sleep", "acme", 0.7) for _ in range(8)]
    long += [send_task("shop.tasks.tidy", "acme") for _ in range(4)]
    assert_success(long, 30)
    assert send_task("shop.tasks.add", "acme", 1, 2).wait(WAIT).result == 3


def test_short_tasks_after_long_ones_are_pushed_again(settings: Settings, start_worker: StartWorker) -> None:
    """A worker that took long tasks one by one is quick again with the first short ones, however many still wait."""
    worker = start_worker(settings, "shop", "--processes", "1", "--slots", "2", "--log-level", "debug")
    long = [send_task("shop.tasks.sleep", "acme", 0.7) for _ in range(8)]
    short = send_tasks([TaskCall("shop.tasks.add", "acme", (number, 1)) for number in range(500)])
    assert_success((*long, *short), 30)
    assert "taking one message a free slot" in worker.log
    assert "having messages pushed" in worker.log


def test_large_messages_are_taken_a_few_at_a_time(settings: Settings, start_worker: StartWorker) -> None:
    """Of messages that take much memory fewer are fetched ahead; small ones are fetched by the hundred again."""
    worker = start_worker(settings, "shop", "--processes", "1", "--slots", "2", "--log-level", "debug")
    text = "x" * 800_000
    for status in send_tasks([TaskCall("shop.tasks.length", "acme", (text,)) for _ in range(40)]):
        assert status.wait(30).result == len(text)
    small = [TaskCall("shop.tasks.add", "acme", (number, 1)) for number in range(300)]
    assert all(status.wait(30).status is Status.SUCCESS for status in send_tasks(small))
    eventually(lambda: len(fetched_ahead(worker.log)) > 2, WAIT)
    first, *later = fetched_ahead(worker.log)
    assert min(later) < first / 2
    assert later[-1] > 2 * min(later)


def fetched_ahead(log: str) -> list[int]:
    """How many messages of each queue a worker has let come, one number for each time it has changed."""
    return [int(number) for number in re.findall(r"up to (\d+) messages of each queue", log)]


def test_a_process_is_replaced_after_so_many_tasks(settings: Settings, start_worker: StartWorker) -> None:
    """--max-tasks-per-child replaces a process without losing a task or failing one."""
    worker = start_worker(settings, "shop", "--processes", "1", "--max-tasks-per-child", "10")
    [first] = worker.child_pids()
    # More than one process starts ahead, so that others get what it gives back.
    statuses = send_tasks([TaskCall("shop.tasks.add", "acme", (number, 1)) for number in range(300)])
    assert {status.wait(60).status for status in statuses} == {Status.SUCCESS}
    eventually(lambda: first not in worker.child_pids(), WAIT)
    assert "has run enough tasks" in worker.log


def test_a_process_is_replaced_when_it_has_grown(settings: Settings, start_worker: StartWorker) -> None:
    """--max-memory-per-child replaces a process that has taken too much memory."""
    worker = start_worker(settings, "shop", "--processes", "1", "--max-memory-per-child", "200")
    [first] = worker.child_pids()
    assert send_task("shop.limited.take_memory", "acme", 250).wait(WAIT).status is Status.SUCCESS
    eventually(lambda: first not in worker.child_pids(), WAIT)
    assert send_task("shop.tasks.add", "acme", 1, 2).wait(WAIT).result == 3
    assert "takes too much memory" in worker.log
