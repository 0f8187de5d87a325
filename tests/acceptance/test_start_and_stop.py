"""How `limetask-worker` starts, what it says of itself, and how it stops."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from limetask import Settings, Status, get_status, send_task
from limetask.topology import Names
from tests.broker import channel_to, queue_length
from tests.proxy import proxy_to
from tests.waiting import eventually
from tests.worker import Worker, write_files

StartWorker = Callable[..., Worker]

PATCHING_HOOK = """
    from limetask import task, worker_process_started

    @worker_process_started
    def patch():
        from gevent import monkey
        monkey.patch_all()

    @task
    def run(app):
        pass
"""


def test_the_banner_says_what_runs_where(settings: Settings, start_worker: StartWorker) -> None:
    """Broker without password, store, queues, processes and tasks are told once all is at work."""
    worker = start_worker(settings, "shop", "--processes", "2", "--slots", "3", "--queues", "asap,default")
    for said in (
        ":***@",
        settings.namespace,
        settings.store_url,
        "asap, default",
        "2 with 3 slots each",
        "shop.tasks.add",
    ):
        eventually(lambda said=said: said in worker.log)  # type: ignore[misc]
    assert "guest:guest" not in worker.log
    assert worker.stop() == 0


def test_a_misspelt_folder_of_the_store_is_told(settings: Settings, start_worker: StartWorker, tmp_path: Path) -> None:
    """The worker does not begin a store that nobody reads: it ends, and says what to do."""
    wrong = replace(settings, store_url=f"sqlite:///{tmp_path}/lmietask/status.db")
    worker = start_worker(wrong, "shop", "--processes", "1", ready=False)
    assert worker.process.wait(30) == 1
    assert f"there is no folder {tmp_path}/lmietask. Make it, or correct LIMETASK_STORE_URL" in worker.log
    assert not (tmp_path / "lmietask").exists()


def test_json_logs_carry_the_task(settings: Settings, start_worker: StartWorker) -> None:
    """Each line is one JSON object; a task's end has its id, name, application, attempt and duration."""
    worker = start_worker(settings, "shop", "--processes", "1", "--log-format", "json")
    status = send_task("shop.tasks.add", "acme", 1, 2)
    status.wait(20)
    assert worker.stop() == 0
    entries = [json.loads(line) for line in worker.log.splitlines()]
    [entry] = [entry for entry in entries if entry.get("task_id") == status.id]
    assert (entry["task"], entry["app"], entry["attempt"]) == ("shop.tasks.add", "acme", 1)
    assert entry["message"] == "succeeded"
    assert 0 <= entry["duration"] < 20


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("broken",), "RuntimeError: a mistake at import"),
        (("empty",), "neither a task nor an event handler is declared in empty"),
        (("nowhere",), "there is no module 'nowhere' here"),
        (("shop/tasks.py",), "give the module's dotted name, 'shop.tasks'"),
        (("greenlets",), "replaced Python's threads by greenlets when greenlets.patching was imported"),
    ],
)
def test_never_half_a_registry(
    settings: Settings, start_worker: StartWorker, arguments: tuple[str, ...], says: str
) -> None:
    """What cannot be imported stops the worker with exit code 1 and the reason, once."""
    worker = start_worker(settings, *arguments, "--processes", "2", ready=False)
    assert worker.process.wait(30) == 1
    assert worker.log.count(says) == 1
    assert "at work" not in worker.log


def test_threads_replaced_by_a_hook_keep_it_from_starting(
    settings: Settings, start_worker: StartWorker, tmp_path: Path
) -> None:
    """It would be at work, as it says, and run nothing."""
    write_files(tmp_path, {"shelf/tasks.py": PATCHING_HOOK})
    worker = start_worker(settings, "shelf", "--processes", "1", ready=False, folder=tmp_path)
    assert worker.process.wait(30) == 1
    assert "by greenlets when the hooks of @worker_process_started ran" in worker.log
    assert "at work" not in worker.log


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"LIMETASK_BROKER_URL": "http://localhost"}, "must look like amqp://"),
        ({"LIMETASK_STORE_URL": "mysql://localhost/x"}, "sqlite"),
        ({"LIMETASK_STORE_URL": f"sqlite:////tmp/{'x' * 300}"}, "cannot be made"),
        ({"LIMETASK_APPLICATION_FACTORY": "nowhere:make"}, "no module 'nowhere'"),
        ({"LIMETASK_APPLICATION_FACTORY": "shop"}, "package.module:callable"),
        ({"LIMETASK_APPLICATION_FACTORY": "greenlets.patching:make_application"}, "the worker needs real threads"),
        ({"LIMETASK_HEARTBEAT": "often"}, "must be a whole number"),
    ],
)
def test_wrong_settings_stop_it_with_advice(
    settings: Settings, start_worker: StartWorker, environment: dict[str, str], says: str
) -> None:
    """A setting that cannot be right ends the worker with exit code 1 and says what to change."""
    worker = start_worker(settings, "shop", "--processes", "1", ready=False, **environment)
    assert worker.process.wait(30) == 1
    assert says in worker.log
    assert "Traceback" not in worker.log


def test_wrong_credentials_stop_it(settings: Settings, start_worker: StartWorker) -> None:
    """A refusal by the broker ends the worker and never shows the password."""
    host = settings.broker_url.partition("@")[2]
    wrong = replace(settings, broker_url=f"amqp://guest:sesame@{host}")
    worker = start_worker(wrong, "shop", "--processes", "1", ready=False)
    assert worker.process.wait(30) == 1
    assert "refused user 'guest'" in worker.log
    assert "sesame" not in worker.log


def test_it_waits_for_a_broker_that_comes_up_later(settings: Settings, start_worker: StartWorker) -> None:
    """Started before its broker, the worker says what it misses, and goes to work when it is there."""
    with proxy_to(settings.broker_url) as (proxy, url):
        proxy.refuse()
        worker = start_worker(replace(settings, broker_url=url), "shop", "--processes", "1", ready=False)
        eventually(lambda: "no RabbitMQ at" in worker.log)
        proxy.refuse(False)
        worker.wait_until_ready()
        assert send_task("shop.tasks.add", "acme", 1, 2).wait(20).result == 3
        assert worker.stop() == 0


def test_running_tasks_end_before_it_stops(settings: Settings, start_worker: StartWorker, tmp_path: Path) -> None:
    """SIGTERM: running tasks end and are recorded, waiting ones stay in the queue, the exit code is 0."""
    worker = start_worker(settings, "shop", "--processes", "1", "--slots", "2")
    running = [send_task("shop.tasks.hold", "acme", str(tmp_path / "trace")) for _ in range(2)]
    eventually(lambda: all(status.refresh().status is Status.STARTED for status in running))
    waiting = [send_task("shop.tasks.add", "acme", number, 1) for number in range(10)]
    worker.process.send_signal(signal.SIGTERM)
    eventually(lambda: queue_length(settings.broker_url, Names(settings.namespace).task_queue("default")) == 10)
    assert worker.process.poll() is None
    (tmp_path / "trace.release").touch()
    assert worker.process.wait(30) == 0
    assert [get_status(status.id, "acme").status for status in running] == [Status.SUCCESS] * 2
    assert {status.refresh().status for status in waiting} == {Status.PENDING}


def test_the_grace_time_ends(settings: Settings, start_worker: StartWorker, tmp_path: Path) -> None:
    """What outlives the grace time is cut off: early is FAILURE, late goes back, and the exit code says so."""
    worker = start_worker(settings, "shop", "--processes", "1", "--grace", "0.5")
    early = send_task("shop.tasks.hold", "acme", str(tmp_path / "early"))
    late = send_task("shop.tasks.hold_late", "acme", str(tmp_path / "late"))
    eventually(lambda: all(status.refresh().status is Status.STARTED for status in (early, late)))
    assert worker.stop() == 1
    ended = get_status(early.id, "acme")
    assert ended.status is Status.FAILURE
    assert ended.error is not None
    assert ended.error.type == "WorkerLost"
    eventually(lambda: queue_length(settings.broker_url, Names(settings.namespace).task_queue("default")) == 1)


def test_a_second_signal_stops_at_once(settings: Settings, start_worker: StartWorker, tmp_path: Path) -> None:
    """Ctrl-C twice does not wait for running tasks; what they were is still told."""
    worker = start_worker(settings, "shop", "--processes", "1")
    status = send_task("shop.tasks.hold", "acme", str(tmp_path / "trace"))
    eventually(lambda: status.refresh().status is Status.STARTED)
    worker.process.send_signal(signal.SIGINT)
    eventually(lambda: "stopping" in worker.log)
    worker.process.send_signal(signal.SIGINT)
    assert worker.process.wait(15) == 1
    start_worker(settings, "shop", "--processes", "1")
    eventually(lambda: status.refresh().status is Status.FAILURE)


def test_a_queue_that_differs_is_told(settings: Settings, start_worker: StartWorker) -> None:
    """A worker that finds another kind of queue under its name ends with what differs and what to do."""
    queue = Names(settings.namespace).task_queue("default")
    with channel_to(settings.broker_url) as channel:
        channel.queue_declare(queue, durable=True)
    worker = start_worker(settings, "shop", "--processes", "1", ready=False)
    assert worker.process.wait(30) == 1
    assert f"queue {queue!r} is there already, and its x-" in worker.log
    assert f"rabbitmqctl delete_queue -p / {queue}" in worker.log
