"""Event handlers: real workers, a real broker, and traces of what was handled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from limetask import Settings, Status, TaskCall, dead_letters, publish_event, send_task, send_tasks
from limetask.dead_letters import list_dead_letters
from limetask.topology import Names
from tests.broker import channel_to
from tests.faults.form import in_form
from tests.waiting import eventually
from tests.worker import Worker

StartWorker = Callable[..., Worker]
WAIT = 30.0
TASKS = in_form(1_000, 10_000)


@pytest.fixture
def traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which handlers leave their traces."""
    folder = tmp_path / "traces"
    folder.mkdir()
    monkeypatch.setenv("LISTENERS_TRACES", str(folder))
    return folder


def lines_of(traces: Path, handler: str) -> list[tuple[str, ...]]:
    """Event id, application, what the event tells and when it happened, in the order of the calls."""
    file = traces / handler
    return [tuple(line.split(" ")) for line in file.read_text().splitlines()] if file.exists() else []


def told(traces: Path, handler: str) -> list[str]:
    return [line[2] for line in lines_of(traces, handler)]


def test_handlers_get_the_events_that_they_want(settings: Settings, start_worker: StartWorker, traces: Path) -> None:
    """Each handler is called once for each event that fits one of its patterns, with the application."""
    worker = start_worker(settings, "listeners", "--processes", "1")
    assert "listeners.every_success" in worker.log
    done = send_task("listeners.count", "acme", 1)
    failed = send_task("listeners.refuse", "umbrella", 2)
    assert (done.wait(WAIT).status, failed.wait(WAIT).status) == (Status.SUCCESS, Status.FAILURE)
    publish_event("acme", "shop.order.paid.v1", "order-3")
    publish_event("acme", "elsewhere.order.paid.v1", "nobody's")
    eventually(lambda: sorted(told(traces, "several")) == ["1", "2", "order-3"], WAIT)
    assert [line[1:3] for line in lines_of(traces, "every_success")] == [("acme", "1")]
    assert [line[1] for line in sorted(lines_of(traces, "several"), key=lambda line: line[2])] == [
        "acme",
        "umbrella",
        "acme",
    ]
    assert worker.stop() == 0


def test_what_happens_without_workers_is_handled_later_in_order(
    settings: Settings, start_worker: StartWorker, traces: Path
) -> None:
    """With its workers stopped a handler misses nothing: 1 000 ends arrive in their order."""
    assert start_worker(settings, "listeners", "--roles", "events").stop() == 0
    start_worker(settings, "listeners", "--processes", "1", "--slots", "1", "--roles", "tasks,recorder")
    statuses = send_tasks([TaskCall("listeners.count", "acme", (number,)) for number in range(1000)])
    assert statuses[-1].wait(60).status is Status.SUCCESS
    assert lines_of(traces, "every_success") == []
    start_worker(settings, "listeners", "--roles", "events")
    eventually(lambda: len(lines_of(traces, "every_success")) >= 1000, WAIT)
    handled = lines_of(traces, "every_success")
    assert {number for _, _, number, _ in handled} == {*map(str, range(1000))}
    assert handled == sorted(handled, key=lambda line: line[3])


def test_a_slow_handler_holds_up_nobody_else(settings: Settings, start_worker: StartWorker, traces: Path) -> None:
    """While one handler takes its time, others have handled the same events, and many more."""
    start_worker(settings, "listeners", "--processes", "1")
    for number in range(30):
        send_task("listeners.refuse", "acme", number)
    eventually(lambda: len(lines_of(traces, "several")) == 30, WAIT)
    assert len(lines_of(traces, "slow_begun")) == 1
    assert len(lines_of(traces, "slow")) == 0


def test_a_broadcast_reaches_every_daemon(settings: Settings, start_worker: StartWorker, traces: Path) -> None:
    """Each of two daemons handles each event once."""
    workers = [start_worker(settings, "listeners", "--processes", "1") for _ in range(2)]
    send_task("listeners.refuse", "acme", 7)
    for worker in workers:
        eventually(lambda worker=worker: told(traces, f"everywhere.{worker.process.pid}") == ["7"], WAIT)  # type: ignore[misc]
    eventually(lambda: told(traces, "several") == ["7"], WAIT)


def test_an_event_that_is_no_event_is_set_aside(settings: Settings, start_worker: StartWorker, traces: Path) -> None:
    """Invalid JSON becomes a dead letter with the reason, and the handler goes on."""
    start_worker(settings, "listeners", "--roles", "events")
    with channel_to(settings.broker_url) as channel:
        channel.basic_publish(Names(settings.namespace).events_exchange, "shop.broken", b"{not JSON")
    publish_event("acme", "shop.fine", "fine")
    eventually(lambda: told(traces, "several") == ["fine"], WAIT)
    eventually(lambda: len(list_dead_letters()) == 1)
    [letter] = list_dead_letters()
    assert "no valid JSON" in letter.reason
    assert letter.kind == "event"
    assert dead_letters.retry(dead_letters.ALL).count == 1  # to its handler, which sets it aside again
    eventually(lambda: [one.deaths for one in list_dead_letters()] == [2])
    assert letter.queue == f"{settings.namespace}.handlers.listeners.several"


def test_a_package_without_handlers_needs_no_event_process(settings: Settings, start_worker: StartWorker) -> None:
    """A worker for tasks alone has no event process; asked for nothing else it says what to declare."""
    worker = start_worker(settings, "my_package", "--processes", "1")
    assert worker.child_pids("limetask_worker.event_runner") == []
    assert worker.stop() == 0
    alone = start_worker(settings, "my_package", "--roles", "events", ready=False)
    assert alone.process.wait(30) == 1
    assert "no event handler is declared in my_package: declare one with @event_handler" in alone.log


@pytest.mark.timeout(300)
def test_many_tasks_and_a_daemon_killed_midway(settings: Settings, start_worker: StartWorker, traces: Path) -> None:
    """Every good event is handled by each handler, once but for its id's repeats; bad ones are dead letters."""
    start_worker(settings, "listeners", "--processes", "2", "--roles", "tasks,recorder", "--log-level", "warning")
    doomed, _ = (start_worker(settings, "listeners", "--roles", "events", "--log-level", "error") for _ in range(2))
    numbers = range(TASKS)
    send_tasks([TaskCall("listeners.count", "acme", (number,)) for number in numbers])
    eventually(lambda: len(lines_of(traces, "every_success")) > TASKS // 3, 120)
    doomed.kill()
    good = {str(number) for number in numbers if number % 3}
    eventually(lambda: set(told(traces, "every_third_fails")) == good, 120)
    eventually(lambda: len(list_dead_letters()) >= TASKS - len(good), 120)
    for handler in ("every_success", "several"):
        eventually(lambda handler=handler: set(told(traces, handler)) == {*map(str, numbers)}, 60)  # type: ignore[misc]
    for handler in ("every_success", "several", "every_third_fails"):
        ids_of_one_event = {(event_id, number) for event_id, _, number, _ in lines_of(traces, handler)}
        assert max(Counter(number for _, number in ids_of_one_event).values()) == 1
    assert all("is a multiple of three" in letter.reason for letter in list_dead_letters())
