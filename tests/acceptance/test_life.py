"""One task's whole life, as its sender, its subscribers and others see it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from limetask import NotFoundError, Settings, Status, TaskStatus, get_status, send_task
from tests.broker import subscriber
from tests.waiting import eventually
from tests.worker import Worker

WAIT = 20.0


def event_as_status(event: dict[str, Any]) -> dict[str, Any]:
    """What an event says, in the form of `status_fields`."""
    moments = ("sent_at", "started_at", "finished_at")
    fields = {name: value for name, value in event.items() if name not in ("id", *moments)}
    return fields | {name: datetime.fromisoformat(event[name]) for name in moments}


def status_fields(status: TaskStatus) -> dict[str, Any]:
    """What a status says, under the names that events use."""
    error = status.error
    return {
        "task_id": status.id,
        "task_name": status.task_name,
        "app": status.app,
        "status": status.status,
        "result": status.result,
        "error": error and {"type": error.type, "message": error.message, "traceback": error.traceback},
        "attempt": status.attempt,
        "worker": status.worker,
        "sent_at": status.sent_at,
        "started_at": status.started_at,
        "finished_at": status.finished_at,
    }


def recorded(status: TaskStatus) -> TaskStatus:
    """The status as the store has it, once the recorder has written the end."""
    return eventually(lambda: (read := get_status(status.id, status.app)).is_completed() and read, WAIT)


def test_every_event_equals_the_status_read_back(
    settings_for_each_store: Settings, start_worker: Callable[..., Worker]
) -> None:
    """For every kind of end, what the event says is what the store says, field by field."""
    settings = settings_for_each_store
    with subscriber(settings.broker_url, settings.namespace) as events:
        start_worker(settings, "shop", "--processes", "1")
        sent = [
            send_task("shop.tasks.add", "acme", 1, 2),
            send_task("shop.tasks.fail", "acme", "nothing in stock ☹"),
            send_task("shop.tasks.crash", "acme"),
            send_task("shop.tasks.not_json", "acme"),
            send_task("shop.tasks.give_up_the_process", "acme"),
            send_task("shop.tasks.echo", "umbrella", datetime(2026, 1, 2, tzinfo=UTC), price=Decimal("1.50")),
            send_task("shop.tasks.nap", "acme", 0.01),
            send_task("shop.tasks.tidy", "acme"),
            send_task("shop.tasks.hold_late", "acme", "trace", 0.01),
        ]
        received = events.wait_for(len(sent))
        statuses = {status.id: recorded(status) for status in sent}
        assert {event["task_id"]: event_as_status(event) for event in received} == {
            task_id: status_fields(status) for task_id, status in statuses.items()
        }
        assert len({event["id"] for event in received}) == len(sent)
        for letter in events.letters:
            event = letter.event
            assert letter.routing_key == f"core.task.{event['task_name']}.{event['status'].lower()}.v1"
    assert [statuses[status.id].to_dict() for status in sent[:4]] == [
        {"id": sent[0].id, "status": "SUCCESS", "result": 3},
        {"id": sent[1].id, "status": "FAILURE", "result": "nothing in stock ☹"},
        {"id": sent[2].id, "status": "FAILURE", "result": None},
        {"id": sent[3].id, "status": "FAILURE", "result": None},
    ]


def test_failures_say_what_went_wrong(settings: Settings, start_worker: Callable[..., Worker]) -> None:
    """An exception leaves its type, message and a traceback that begins in the task; a bad result says so."""
    start_worker(settings, "shop", "--processes", "1")
    crash = send_task("shop.tasks.crash", "acme").wait(WAIT)
    assert crash.error is not None
    assert (crash.error.type, crash.error.message) == ("ZeroDivisionError", "division by zero")
    assert crash.error.traceback.splitlines()[1].endswith(", in crash")
    not_json = send_task("shop.tasks.not_json", "acme").wait(WAIT)
    assert not_json.error is not None
    assert "JSON" in not_json.error.message
    large = send_task("shop.tasks.large", "acme", 2_000_000).wait(WAIT)
    assert large.error is not None
    assert "limit is 1,048,576 bytes" in large.error.message
    exit_in_task = send_task("shop.tasks.give_up_the_process", "acme").wait(WAIT)
    assert exit_in_task.error is not None
    assert exit_in_task.error.type == "SystemExit"
    assert send_task("shop.tasks.add", "acme", 1, 1).wait(WAIT).result == 2  # the process is still there


def test_arguments_arrive_as_they_were_sent(settings: Settings, start_worker: Callable[..., Worker]) -> None:
    """What travels by msgpack comes back as JSON expresses it: dates as text, numbers exact."""
    start_worker(settings, "shop", "--processes", "1")
    identity = uuid.uuid4()
    ended = send_task("shop.tasks.echo", "acme", identity, date(2026, 2, 3), amount=Decimal("0.10"), blob=None).wait(
        WAIT
    )
    assert ended.result == ["acme", [str(identity), "2026-02-03"], {"amount": "0.10", "blob": None}]


def test_what_libraries_make_is_a_result(settings: Settings, start_worker: Callable[..., Worker]) -> None:
    """numpy's numbers, arrays and keys, and a Pydantic model, are a SUCCESS, and a NaN fails with the reason."""
    start_worker(settings, "figures", "--processes", "1")
    summary = send_task("figures.summarize", "acme", [3.5, 1.5])
    nothing = send_task("figures.nothing_to_divide", "acme").wait(WAIT)
    assert recorded(summary).result == {
        "mean": 2.5,
        "prices": [1.5, 3.5],
        "by_month": {"1": 2, "2": 1},
        "last": {"name": "May", "trend": "up"},
    }
    assert nothing.error is not None
    assert "NaN" in nothing.error.message


def test_a_failure_subscription_gets_only_failures(settings: Settings, start_worker: Callable[..., Worker]) -> None:
    """A queue bound to `core.task.#.failure.v1` hears of no success."""
    with (
        subscriber(settings.broker_url, settings.namespace, "core.task.#.failure.v1") as failures,
        subscriber(settings.broker_url, settings.namespace) as everything,
    ):
        start_worker(settings, "shop", "--processes", "1")
        for number in range(30):
            send_task("shop.tasks.add", "acme", number, 1)
            send_task("shop.tasks.fail", "acme", str(number))
        everything.wait_for(60)
        assert sorted(int(event["result"]) for event in failures.wait_for(30)) == list(range(30))
        assert {event["status"] for event in failures.events} == {"FAILURE"}


def test_another_application_reads_nothing(
    settings: Settings, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """Pending, running or ended: for another application's eyes there is no such task."""
    status = send_task("shop.tasks.hold", "acme", str(tmp_path / "trace"))
    assert status.refresh().status is Status.PENDING
    assert_hidden(status)
    start_worker(settings, "shop", "--processes", "1")
    eventually(lambda: status.refresh().status is Status.STARTED, WAIT)
    assert_hidden(status)
    (tmp_path / "trace.release").touch()
    assert status.wait(WAIT).status is Status.SUCCESS
    assert_hidden(status)
    assert recorded(status).status is Status.SUCCESS
    assert_hidden(status)


def assert_hidden(status: TaskStatus) -> None:
    with pytest.raises(NotFoundError):
        get_status(status.id, "umbrella")


def test_a_process_that_did_not_send_can_wait(settings: Settings, start_worker: Callable[..., Worker]) -> None:
    """Whoever has only the id and the application waits as well, through the store."""
    start_worker(settings, "shop", "--processes", "1")
    status = send_task("shop.tasks.nap", "acme", 0.2)
    from limetask.client import close_default_client

    close_default_client()  # its reply key is gone with it, as in another process
    assert get_status(status.id, "acme").wait(WAIT).status is Status.SUCCESS


def test_a_task_sends_a_task(settings: Settings, start_worker: Callable[..., Worker]) -> None:
    """A body may use the client like any other code."""
    start_worker(settings, "shop", "--processes", "1")
    first = send_task("shop.tasks.send_another", "acme", 20, 22).wait(WAIT)
    assert get_status(first.result, "acme").wait(WAIT).result == 42


def test_a_worker_moves_a_task_to_its_own_queue(settings: Settings, start_worker: Callable[..., Worker]) -> None:
    """A sender that has only the name sends to the default queue; the worker that knows better moves the task."""
    worker = start_worker(settings, "shop", "--processes", "1", "--queues", "default")
    status = send_task("shop.tasks.tidy", "acme")
    eventually(lambda: "moved task" in worker.log, WAIT)
    assert status.refresh().status is Status.PENDING  # nobody takes the background queue
    start_worker(settings, "shop", "--processes", "1", "--queues", "background", "--roles", "tasks")
    assert status.wait(WAIT).result == "tidy"


def test_nobody_sees_a_task_go_backwards(settings: Settings, start_worker: Callable[..., Worker]) -> None:
    """Once wait has told an end, the same process reads it, even if nothing records it."""
    start_worker(settings, "shop", "--processes", "1", "--roles", "tasks")
    ended = eventually(send_until_heard_of, WAIT)
    assert get_status(ended.id, "acme") == ended
    assert_hidden(ended)


def send_until_heard_of() -> TaskStatus | None:
    """Send a task and wait for its event; the first of a process may end before its reply queue is there."""
    try:
        return send_task("shop.tasks.add", "acme", 1, 2).wait(2)
    except TimeoutError:
        return None
