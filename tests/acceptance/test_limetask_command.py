"""The `limetask` command as an operator uses it, with real workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pika
import pytest

from limetask import Settings, Status, TaskStatus, get_status, send_task
from limetask.dead_letters import list_dead_letters
from limetask.topology import DELAY_LEVELS, Names, delay_topology, topology
from tests.broker import channel_to, declare_namespace, queue_length
from tests.waiting import eventually
from tests.worker import Worker, environment_of

LIMETASK = Path(sys.executable).with_name("limetask")


def run(settings: Settings, *arguments: str, answer: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command, with `answer` typed into it."""
    return subprocess.run(
        [LIMETASK, *arguments],
        env=environment_of(settings) | environment,
        input=answer,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def document(settings: Settings, *arguments: str) -> Any:
    """Run the command with --json and return its document; it is all that is printed."""
    ran = run(settings, *arguments, "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    return json.loads(ran.stdout)


def dead_letter_of(settings: Settings, start_worker: Callable[..., Worker], task: str, *arguments: Any) -> TaskStatus:
    """Send a task to a worker that does not have it; return its status when the letter is in its queue."""
    worker = start_worker(settings, "my_package", "--processes", "1")
    sent = send_task(task, "acme", *arguments)
    status = sent.wait(20)
    assert status.status is Status.FAILURE
    eventually(lambda: queue_length(settings.broker_url, Names(settings.namespace).dead_queue) == 1)
    assert worker.stop() == 0
    return sent


def tasks_waiting(settings: Settings) -> int:
    return queue_length(settings.broker_url, Names(settings.namespace).task_queue("default"))


def ended_with(status: TaskStatus, attempt: int) -> TaskStatus:
    """Return a task's status when that attempt has ended."""

    def read() -> TaskStatus | None:
        now = get_status(status.id, status.app)
        return now if now.is_completed() and now.attempt == attempt else None

    return eventually(read)


def test_a_retried_task_ends_in_success(settings: Settings, start_worker: Callable[..., Worker]) -> None:
    """A task that no worker had is listed and shown; retried, it runs under its id where a worker has it."""
    sent = dead_letter_of(settings, start_worker, "shop.tasks.add", 20, 22)
    listed = run(settings, "dead", "list")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "shop.tasks.add" in listed.stdout
    assert "unknown task: this worker has no task 'shop.tasks.add'" in listed.stdout
    [letter] = document(settings, "dead", "list")
    assert letter["id"] in listed.stdout
    assert (letter["task_id"], letter["app"], letter["attempt"]) == (sent.id, "acme", 1)

    shown = run(settings, "dead", "show", letter["id"])
    assert "[20, 22]" in shown.stdout
    assert document(settings, "dead", "show", letter["id"])["args"] == [20, 22]

    retried = run(settings, "dead", "retry", letter["id"], answer="y\n")
    assert (retried.returncode, retried.stdout) == (0, "1 dead letter retried.\n")
    assert "Retry 1 dead letter (shop.tasks.add)? [y/N]" in retried.stderr
    assert run(settings, "dead", "list").stdout == "No dead letters.\n"
    start_worker(settings, "shop", "--processes", "1")
    status = ended_with(sent, 2)
    assert (status.status, status.result) == (Status.SUCCESS, 42)

    told = document(settings, "status", sent.id, "acme")
    assert (told["status"], told["result"], told["attempt"]) == ("SUCCESS", 42, 2)
    assert "SUCCESS" in run(settings, "status", sent.id, "acme").stdout


KILLED_BEFORE_THE_ACK = """
import os, signal
from limetask.amqp import Connection
from limetask.cli import main

Connection.ack = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
main()
"""


@pytest.mark.parametrize("worker_runs_in_between", [True, False])
def test_an_interrupted_retry_runs_the_task_once(
    settings: Settings, start_worker: Callable[..., Worker], tmp_path: Path, worker_runs_in_between: bool
) -> None:
    """Killed between publish and ack, and repeated, the task is sent twice and its body runs once."""
    trace = tmp_path / "trace"
    sent = dead_letter_of(settings, start_worker, "shop.tasks.count_run", str(trace), 7)
    command = [sys.executable, "-c", KILLED_BEFORE_THE_ACK, "dead", "retry", "--all", "--yes"]
    assert subprocess.run(command, env=environment_of(settings), check=False).returncode == -signal.SIGKILL
    workers = []
    if worker_runs_in_between:
        workers.append(start_worker(settings, "shop", "--processes", "1"))
        ended_with(sent, 2)
    assert document(settings, "dead", "retry", "--all", "--yes") == {"retried": 1, "refused": [], "missing": []}
    if not worker_runs_in_between:
        eventually(lambda: tasks_waiting(settings) == 2)
        workers.append(start_worker(settings, "shop", "--processes", "2"))
    assert ended_with(sent, 2).status is Status.SUCCESS
    eventually(lambda: any("a repeated message" in worker.log for worker in workers))
    assert [worker.stop() for worker in workers] == [0]
    assert tasks_waiting(settings) == 0  # nothing was given back: both messages are settled
    assert trace.read_text().splitlines() == ["7"]


def test_purge_deletes_what_it_shows(settings: Settings, start_worker: Callable[..., Worker]) -> None:
    """It asks; a no changes nothing; with --yes the letter is gone, and the task's status stays."""
    sent = dead_letter_of(settings, start_worker, "shop.tasks.add", 1, 2)
    refused = run(settings, "dead", "purge", "--app", "acme", answer="n\n")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert len(list_dead_letters()) == 1
    assert document(settings, "dead", "purge", "--app", "umbrella", "--yes") == {
        "purged": 0,
        "refused": [],
        "missing": [],
    }
    assert document(settings, "dead", "purge", "--app", "acme", "--yes")["purged"] == 1
    assert list_dead_letters() == []
    assert get_status(sent.id, "acme").status is Status.FAILURE


def test_no_letters_and_unknown_ids(settings: Settings) -> None:
    """An empty queue is no error; an id that nobody has is, and nothing is changed."""
    assert run(settings, "dead", "list").stdout == "No dead letters.\n"
    assert run(settings, "dead", "list", "--task", "a.*").stdout == "No dead letters fit.\n"
    assert document(settings, "dead", "list") == []
    assert document(settings, "dead", "retry", "--all") == {"retried": 0, "refused": [], "missing": []}
    assert run(settings, "dead", "purge", "--all").stdout == "0 dead letters purged.\n"
    for command in (["dead", "show"], ["dead", "retry"], ["dead", "purge"]):
        ran = run(settings, *command, "0123456789abcdef")
        assert (ran.returncode, ran.stdout) == (1, "")
        assert ran.stderr.startswith("Error: there is no dead letter")
    unknown = run(settings, "status", str(uuid.uuid4()), "acme")
    assert unknown.returncode == 1
    assert "Error: application 'acme' has no task" in unknown.stderr


def test_what_is_no_task_is_reported(settings: Settings) -> None:
    """A retry of everything tells what it had to leave, by exit code and document; its texts harm no terminal."""
    declare_namespace(settings.broker_url, settings.namespace)
    with channel_to(settings.broker_url) as channel:
        headers = {"task": "\x1b[2Jevil", "app": "acme"}
        channel.basic_publish(
            Names(settings.namespace).dead_exchange, "", b"\xc1", pika.BasicProperties(headers=headers)
        )
    [letter] = document(settings, "dead", "list")
    for command in (["dead", "list"], ["dead", "show", letter["id"]]):
        shown = run(settings, *command)
        assert "\x1b" not in shown.stdout
        assert "\\x1b[2Jevil" in shown.stdout
    ran = run(settings, "dead", "retry", "--all", "--yes", "--json")
    assert ran.returncode == 1
    assert json.loads(ran.stdout)["refused"] == [{"id": letter["id"], "reason": "it is no task of limetask"}]
    assert run(settings, "dead", "retry", letter["id"], "--yes").stdout == "0 dead letters retried.\n"
    assert len(list_dead_letters()) == 1


def test_an_unreachable_broker_is_one_line(settings: Settings) -> None:
    """Without a broker there is one line that says so, without a traceback and without the password."""
    url = "amqp://guest:secret@127.0.0.1:1/"
    ran = run(settings, "dead", "list", LIMETASK_BROKER_URL=url, LIMETASK_CONNECT_TIMEOUT="0.5")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("Error: no RabbitMQ at 127.0.0.1:1")
    assert ran.stderr.count("\n") == 1
    assert "secret" not in ran.stderr


def test_many_letters_show_their_progress_on_a_terminal_only(settings: Settings) -> None:
    """Piped output is whole lines and nothing else: no bar, no colour, no cut text."""
    names = Names(settings.namespace)
    declare_namespace(settings.broker_url, settings.namespace)
    with channel_to(settings.broker_url) as channel:
        for number in range(600):
            channel.basic_publish(names.dead_exchange, "", str(number).encode())
    eventually(lambda: queue_length(settings.broker_url, names.dead_queue) == 600)
    ran = run(settings, "dead", "list", "--limit", "550", TERM="xterm-256color", COLUMNS="40")
    assert ran.stderr == ""
    assert "\x1b" not in ran.stdout
    lines = ran.stdout.splitlines()
    assert len(lines) == 552
    assert lines[-1] == "550 dead letters. Look at one: limetask dead show ID"
    assert os.linesep.join(lines).count("neither a worker nor the broker has set it aside") == 550


@pytest.fixture
def names_with_all_delays(settings: Settings) -> Iterator[Names]:
    """The names of this test's namespace, whose 24 levels of delays are deleted afterwards."""
    names = Names(settings.namespace)
    yield names
    with channel_to(settings.broker_url) as channel:
        for queue in delay_topology(names, DELAY_LEVELS).queues:
            channel.queue_delete(queue.name)
        for exchange in delay_topology(names, DELAY_LEVELS).exchanges:
            channel.exchange_delete(exchange.name)


def test_setup_declares_everything(settings: Settings, names_with_all_delays: Names) -> None:
    """It declares all that limetask ever needs, with every level of delays, says so, and may be repeated."""
    expected = [topology(names_with_all_delays), delay_topology(names_with_all_delays, DELAY_LEVELS)]
    queues = [queue.name for wanted in expected for queue in wanted.queues]
    exchanges = [exchange.name for wanted in expected for exchange in wanted.exchanges]
    told = document(settings, "setup")
    assert (sorted(told["queues"]), sorted(told["exchanges"])) == (sorted(queues), sorted(exchanges))
    with channel_to(settings.broker_url) as channel:
        for queue in queues:
            channel.queue_declare(queue, passive=True)
        for exchange in exchanges:
            channel.exchange_declare(exchange, passive=True)
    again = run(settings, "setup")
    assert (again.returncode, again.stderr) == (0, "")
    assert [name for name in queues + exchanges if name not in again.stdout] == []
    assert again.stdout.endswith("29 exchanges and 29 queues exist now.\n")
