"""The documents' examples, run as they stand there against a real worker, through `lime_task`."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from limetask import Settings, get_status
from tests.broker import subscriber
from tests.worker import Worker, environment_of

# Letter for letter, apart from the documents' typing errors: `is_completed())` and the quotes in the last line.
SEND = """
from lime_task import send_task

task_name = 'my_package.tasks.lime.get_lime_company' #task function name including the full module path
task_status = send_task(task_name, my_limeapp, 1001)

# Update status
print('status:', task_status.status)
print('result:', task_status.result)
"""

GET_STATUS = """
import lime_task
import logging

logger = logging.getLogger(__name__)

task_id = 'generated-id'
app_name = 'my-app-name'
try:
    task_status = lime_task.get_status(task_id, app_name)
    while not task_status.is_completed():
        time.sleep(30)
        task_status = lime_task.get_status(task_id, app_name)

    print('status:', task_status.status)
    print('result:', task_status.result)
except lime_task.NotFoundError:
    logger.error("Couldn't find task {} for app {}".format(task_id, app_name))
"""

# What stands around the examples in a user's program.
APPLICATION = """
class LimeApplication:
    identifier = 'my-app-name'

my_limeapp = LimeApplication()
"""
POLL_FASTER = """
import types, time as real_time
time = types.SimpleNamespace(sleep=lambda seconds: real_time.sleep(seconds / 1000))
"""


def run_program(settings: Settings, source: str) -> subprocess.CompletedProcess[str]:
    """Run a user's program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", source],
        env=environment_of(settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_documents_run(settings: Settings, start_worker: Callable[..., Worker]) -> None:
    """Sending prints PENDING and no result; polling by id and application name prints how the task ended."""
    start_worker(settings, "my_package", "--processes", "1")
    sent = run_program(settings, APPLICATION + SEND + "print('id:', task_status.id)")
    assert sent.stderr == ""
    assert sent.stdout.splitlines()[:2] == ["status: PENDING", "result: None"]
    task_id = sent.stdout.splitlines()[2].removeprefix("id: ")

    polled = run_program(settings, POLL_FASTER + GET_STATUS.replace("generated-id", task_id))
    assert polled.stderr == ""
    # The documents' call leaves out `props`, which their declaration requires, so their task fails, and says why.
    assert polled.stdout.splitlines() == ["status: FAILURE", "result: None"]
    error = get_status(task_id, "my-app-name").error
    assert error is not None
    assert error.message == "get_lime_company() missing 1 required positional argument: 'props'"


def test_the_documents_task_returns_its_result(settings: Settings, start_worker: Callable[..., Worker]) -> None:
    """With all of its arguments, the documents' task succeeds, and its event has the documented routing key."""
    with subscriber(settings.broker_url, settings.namespace) as events:
        start_worker(settings, "my_package", "--processes", "1")
        with_props = SEND.replace("1001)", "1001, props=['name', 'city'])")
        sent = run_program(settings, APPLICATION + with_props + "print('id:', task_status.id)")
        task_id = sent.stdout.splitlines()[2].removeprefix("id: ")
        polled = run_program(settings, POLL_FASTER + GET_STATUS.replace("generated-id", task_id))
        assert polled.stdout.splitlines() == ["status: SUCCESS", "result: {'description': 'Acme, Lund'}"]
        events.wait_for(1)
        [letter] = events.letters
        assert letter.routing_key == "core.task.my_package.tasks.lime.get_lime_company.success.v1"


def test_an_unknown_id_is_not_found(settings: Settings) -> None:
    """The documents' program, with its placeholder id, ends in its `except lime_task.NotFoundError`."""
    polled = run_program(settings, POLL_FASTER + GET_STATUS)
    assert polled.stderr == "Couldn't find task generated-id for app my-app-name\n"


def test_the_documents_late_ack_task_is_declared(settings: Settings, tmp_path: Path) -> None:
    """The documents' example of late ack is accepted as it stands."""
    source = textwrap.dedent(
        """
        from lime_task import task

        @task(acks_late=True)
        def my_task(app, *args, **kwargs):
            ...

        print(my_task.acks_late)
        """
    )
    declared = run_program(settings, source)
    assert (declared.stdout, declared.stderr) == ("True\n", "")
