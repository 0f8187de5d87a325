"""A late-ack task that takes its worker process down, again and again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from limetask import Settings, Status, send_task
from limetask.topology import Names
from tests.broker import queue_length, subscriber, take_all
from tests.waiting import eventually
from tests.worker import Worker


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_a_poisonous_task_is_given_up_and_takes_no_other_with_it(
    settings: Settings, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """It begins five times or six, is dead-lettered and FAILURE with its event; a task beside it succeeds."""
    poison_trace, other_trace = tmp_path / "poison", tmp_path / "other"
    with subscriber(settings.broker_url, settings.namespace) as events:
        worker = start_worker(settings, "shop", "--processes", "1")
        other = send_task("shop.tasks.hold_late", "acme", str(other_trace))
        eventually(lambda: other.refresh().status is Status.STARTED)
        poison = send_task("shop.tasks.kill_the_process", "acme", str(poison_trace))

        ended = poison.wait(60)
        assert ended.status is Status.FAILURE
        # The record of its very first start may have died with it: a late body does not wait for its confirm.
        begun = len(lines(poison_trace))
        assert begun in (5, 6)
        assert ended.error is not None
        assert ended.error.type == "BegunTooOftenError"
        assert "5 times" in ended.error.message

        (tmp_path / "other.release").touch()
        assert other.wait(30).status is Status.SUCCESS
        # It was lost with the poisonous task's runs in its own process, and with none that was alone.
        assert len(lines(other_trace)) <= begun - 3
        assert {event["status"] for event in events.wait_for(2)} == {"SUCCESS", "FAILURE"}
    names = Names(settings.namespace)
    [letter] = take_all(settings.broker_url, names.dead_queue, 1)
    assert letter.headers["original"]["task_id"] == poison.id
    assert queue_length(settings.broker_url, names.task_queue("default")) == 0
    assert worker.log.count("task process") == begun - 4  # the later runs were alone
