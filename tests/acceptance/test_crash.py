"""A task process that is killed: what it was running ends in the right status."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from limetask import Settings, Status, send_task
from tests.broker import subscriber
from tests.waiting import eventually
from tests.worker import Worker


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_a_killed_process_fails_its_early_task_and_leaves_its_late_one_to_another(
    settings_for_each_store: Settings, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """kill -9 in the body: the early task is not run again and is FAILURE; the late one is run again and succeeds."""
    settings = settings_for_each_store
    early_trace, late_trace = tmp_path / "early", tmp_path / "late"
    with subscriber(settings.broker_url, settings.namespace) as events:
        worker = start_worker(settings, "shop", "--processes", "1")
        early = send_task("shop.tasks.hold", "acme", str(early_trace))
        late = send_task("shop.tasks.hold_late", "acme", str(late_trace))
        eventually(lambda: lines(early_trace) and lines(late_trace))
        eventually(lambda: early.refresh().status is Status.STARTED and late.refresh().status is Status.STARTED)
        [victim] = worker.child_pids()
        os.kill(victim, signal.SIGKILL)

        ended = early.wait(20)
        assert ended.status is Status.FAILURE
        assert ended.error is not None
        assert ended.error.type == "WorkerLost"
        assert "SIGKILL" in ended.error.message

        eventually(lambda: len(lines(late_trace)) == 2, what="the late task's second run")
        (tmp_path / "late.release").touch()
        again = late.wait(20)
        assert (again.status, again.result != victim) == (Status.SUCCESS, True)

        assert send_task("shop.tasks.add", "acme", 1, 2).wait(20).result == 3  # another process has taken over
        assert lines(early_trace) == [str(victim)]
        by_id = {event["task_id"]: event["status"] for event in events.wait_for(3)}
        assert (by_id[early.id], by_id[late.id]) == ("FAILURE", "SUCCESS")
    eventually(lambda: late.refresh().status is Status.SUCCESS)
    assert early.refresh().status is Status.FAILURE
    assert early.refresh().error == ended.error


def test_a_killed_recorder_is_replaced(settings: Settings, start_worker: Callable[..., Worker]) -> None:
    """Records wait in their queue while there is no recorder, and are all written by the next one."""
    worker = start_worker(settings, "shop", "--processes", "1")
    [recorder] = worker.child_pids("limetask_worker.recorder")
    os.kill(recorder, signal.SIGKILL)
    statuses = [send_task("shop.tasks.add", "acme", number, 1) for number in range(50)]
    eventually(lambda: all(status.refresh().status is Status.SUCCESS for status in statuses), 30)
    assert worker.child_pids("limetask_worker.recorder") != [recorder]


def test_no_child_outlives_a_killed_supervisor(settings: Settings, start_worker: Callable[..., Worker]) -> None:
    """When the supervisor is killed, its children stop by themselves instead of consuming on unseen."""
    worker = start_worker(settings, "shop", "--processes", "2")
    children = worker.child_pids() + worker.child_pids("limetask_worker.recorder")
    assert len(children) == 3
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    eventually(lambda: not any(Path(f"/proc/{child}").exists() for child in children), 30, "the children's end")


def test_a_host_that_dies_as_a_whole_is_noticed(
    settings: Settings, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """When supervisor and children die at once, another host's recorder fails what they were running."""
    settings = replace(settings, worker_timeout=4.0)
    dying = start_worker(settings, "shop", "--processes", "1", "--roles", "tasks")
    start_worker(settings, "shop", "--roles", "recorder")
    status = send_task("shop.tasks.hold", "acme", str(tmp_path / "trace"))
    eventually(lambda: status.refresh().status is Status.STARTED)
    dying.kill()  # the whole process group
    ended = status.wait(20)
    assert ended.error is not None
    assert (ended.status, ended.error.type) == (Status.FAILURE, "WorkerLost")
    assert "no sign of life" in ended.error.message


def test_a_busy_host_is_not_presumed_dead(
    settings: Settings, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """A task that runs for longer than a host may be silent is left alone: its supervisor gives signs of life."""
    settings = replace(settings, worker_timeout=2.0)
    start_worker(settings, "shop", "--processes", "1")
    status = send_task("shop.tasks.nap", "acme", 7.0)
    assert status.wait(20).status is Status.SUCCESS
    eventually(lambda: status.refresh().status is Status.SUCCESS)
