"""Many tasks from many senders: each run once, one event each, every status right."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from limetask import Settings, Status, get_status
from tests.broker import subscriber
from tests.waiting import eventually
from tests.worker import Worker, environment_of

TASKS = 5000
SENDERS = 2
THREADS = 8

SENDER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from limetask import send_task

first, count, threads, trace = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
applications = ("acme", "umbrella")

def send(number):
    app = applications[number % 2]
    return send_task("shop.tasks.count_run", app, trace, number).id, app

with ThreadPoolExecutor(threads) as pool:
    for task_id, app in pool.map(send, range(first, first + count)):
        print(task_id, app)
"""


def test_thousands_of_tasks_run_once_each(
    settings_for_each_store: Settings, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """5 000 tasks from 2 processes with 8 threads each: all SUCCESS, each run once, one event each."""
    settings = settings_for_each_store
    trace = tmp_path / "trace"
    share = TASKS // SENDERS
    with subscriber(settings.broker_url, settings.namespace) as events:
        start_worker(settings, "shop", "--processes", "2", "--log-level", "warning")
        senders = [
            subprocess.Popen(
                [sys.executable, "-c", SENDER, str(number * share), str(share), str(THREADS), str(trace)],
                env=environment_of(settings),
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(SENDERS)
        ]
        sent = [line.split() for sender in senders for line in sender.communicate(timeout=100)[0].splitlines()]
        assert [sender.returncode for sender in senders] == [0] * SENDERS
        received = events.wait_for(TASKS, timeout=100)
    assert Counter(int(line) for line in trace.read_text().splitlines()) == Counter(range(TASKS))
    assert Counter(event["task_id"] for event in received) == Counter(task_id for task_id, _ in sent)
    assert {event["status"] for event in received} == {"SUCCESS"}
    for task_id, app in sent:
        eventually(lambda task_id=task_id, app=app: get_status(task_id, app).status is Status.SUCCESS)  # type: ignore[misc]
