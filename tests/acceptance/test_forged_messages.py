"""Without signing keys a producer may send anything: what has a status keeps it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgpack

from limetask import Settings, Status, TaskStatus, get_status, ids, send_task
from limetask.dead_letters import ALL, list_dead_letters, retry
from limetask.topology import Names
from tests.acceptance.test_refusals import GOOD_BODY, headers_of, publish
from tests.broker import Subscriber, declare_namespace, queue_length, subscriber
from tests.waiting import eventually
from tests.worker import Worker

MSGPACK = "application/msgpack"
LATE = 2**31 - 1
FORGERIES: list[tuple[dict[str, Any], bytes]] = [
    *(({"task": "shop.tasks.forgotten", "attempt": attempt}, GOOD_BODY) for attempt in (1, 2, 3, LATE)),
    *(({"task": "shop.tasks.echo", "attempt": attempt}, b"\xc1") for attempt in (1, 2, LATE)),
    *(({"task": "shop.tasks.echo", "attempt": attempt}, GOOD_BODY) for attempt in (2, 3, LATE)),
    ({"task": "shop.tasks.echo", "attempt": 2, "put_off": 2**63 - 1, "moved": True}, GOOD_BODY),
    ({"task": "shop.tasks.echo", "attempt": LATE, "repeated": True}, GOOD_BODY),
    ({"task": "shop.tasks.echo", "app": "umbrella"}, GOOD_BODY),
    ({"task": "shop.tasks.echo", "attempt": LATE + 1}, GOOD_BODY),
]


def forge(settings: Settings, victim: TaskStatus) -> None:
    for headers, body in FORGERIES:
        publish(settings, headers_of(victim.id, **headers), body, MSGPACK)


def dead_count(settings: Settings) -> int:
    return queue_length(settings.broker_url, Names(settings.namespace).dead_queue)


def all_is_done(settings: Settings) -> None:
    """Whatever was published before is recorded."""
    last = send_task("shop.tasks.add", "acme", 1, 2)
    eventually(lambda: last.refresh().is_completed(), 30)
    assert queue_length(settings.broker_url, Names(settings.namespace).task_queue("default")) == 0


def ends_of(events: Subscriber, victim: TaskStatus) -> list[str]:
    return [event["status"] for event in events.events if event["task_id"] == victim.id]


def test_an_end_is_not_changed_by_whoever_may_send_tasks(
    settings: Settings, start_worker: Callable[..., Worker]
) -> None:
    """Unknown tasks, bodies that cannot be read, other attempts: dead letters, and neither an end nor an event."""
    declare_namespace(settings.broker_url, settings.namespace)
    with subscriber(settings.broker_url, settings.namespace) as events:
        start_worker(settings, "shop", "--processes", "1")
        victim = send_task("shop.tasks.echo", "acme", "mine")
        ended = eventually(lambda: (read := victim.refresh()).is_completed() and read)
        forge(settings, victim)
        eventually(lambda: dead_count(settings) == len(FORGERIES), 60, "a dead letter for each")
        all_is_done(settings)
        assert victim.refresh() == ended
        assert ends_of(events, victim) == ["SUCCESS"]
        reasons = [letter.reason for letter in list_dead_letters()]
        assert sum("unexpected attempt" in reason for reason in reasons) == 5
        assert sum("unknown task" in reason for reason in reasons) == 4
        retry(ALL)  # two of these are the same message but for its flags
        eventually(lambda: dead_count(settings) == len(FORGERIES) - 1, 60, "all to be set aside again")
        all_is_done(settings)
        assert victim.refresh() == ended
        assert ends_of(events, victim) == ["SUCCESS"]


def test_a_running_task_keeps_its_own_end(
    settings: Settings, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """While it runs it is STARTED, and ends as its body does."""
    declare_namespace(settings.broker_url, settings.namespace)
    trace = tmp_path / "trace"
    with subscriber(settings.broker_url, settings.namespace) as events:
        start_worker(settings, "shop", "--processes", "1")
        victim = send_task("shop.tasks.hold", "acme", str(trace))
        eventually(lambda: victim.refresh().status is Status.STARTED)
        forge(settings, victim)
        eventually(lambda: dead_count(settings) == len(FORGERIES), 60, "a dead letter for each")
        all_is_done(settings)
        assert victim.refresh().status is Status.STARTED
        Path(f"{trace}.release").touch()
        eventually(lambda: victim.refresh().status is Status.SUCCESS)
        eventually(lambda: ends_of(events, victim) == ["SUCCESS"])


def test_a_task_that_waits_is_run_whatever_was_refused_in_its_name(
    settings: Settings, start_worker: Callable[..., Worker]
) -> None:
    """What was refused with its id, before it came to run, neither keeps it from running nor hides its end."""
    declare_namespace(settings.broker_url, settings.namespace)
    task_id = ids.new_task_id("acme")
    start_worker(settings, "shop", "--processes", "1")
    publish(settings, headers_of(task_id, task="shop.tasks.forgotten", attempt=9), GOOD_BODY, MSGPACK)
    refused = eventually(lambda: (read := get_status(task_id, "acme")).is_completed() and read)
    assert refused.error is not None
    assert (refused.status, refused.error.type) == (Status.FAILURE, "UnknownTaskError")
    body = msgpack.packb({"args": [1, 2], "kwargs": {}})
    publish(settings, headers_of(task_id), body, MSGPACK)
    eventually(lambda: get_status(task_id, "acme").status is Status.SUCCESS)
    assert get_status(task_id, "acme").result == 3


def has_failed(task: TaskStatus, attempt: int) -> bool:
    status = task.refresh()
    return (status.status, status.attempt) == (Status.FAILURE, attempt)


def test_a_refused_task_is_retried_as_often_as_one_likes(
    settings: Settings, start_worker: Callable[..., Worker]
) -> None:
    """Each retry is the next attempt, refused again and told so, until a worker has the task."""
    without = start_worker(settings, "my_package", "--processes", "1")
    victim = send_task("shop.tasks.add", "acme", 1, 2)
    for attempt in (1, 2, 3):
        eventually(partial(has_failed, victim, attempt), 30, f"attempt {attempt}")
        eventually(lambda: dead_count(settings) == 1)
        if attempt < 3:
            assert retry(ALL).count == 1
    assert without.stop() == 0
    start_worker(settings, "shop", "--processes", "1")
    assert retry(ALL).count == 1
    eventually(lambda: victim.refresh().status is Status.SUCCESS, 30)
    assert (victim.refresh().result, victim.refresh().attempt) == (3, 4)
