"""`limetask doctor`: what it finds, and what it tells to do."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pika

from limetask import Settings, send_task
from limetask.store_tables import SCHEMA_VERSION
from limetask.topology import Names
from tests.broker import channel_to
from tests.waiting import eventually
from tests.worker import Worker, environment_of


def examine(settings: Settings, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command with these settings."""
    command = Path(sys.executable).with_name("limetask")
    return subprocess.run(
        [command, "doctor", *options],
        env=environment_of(settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_all_is_well_with_a_worker(settings_for_each_store: Settings, start_worker: Callable[..., Worker]) -> None:
    """With broker, worker, recorder and store it finds nothing amiss, and exits with 0."""
    settings = settings_for_each_store
    start_worker(settings, "shop", "--processes", "1")
    # The broker counts consumers now and then.
    examined = eventually(lambda: (done := examine(settings)).returncode == 0 and done, 30)
    assert "amiss" not in examined.stdout
    assert "RabbitMQ" in examined.stdout
    assert "into this store" in examined.stdout
    assert f"with schema {SCHEMA_VERSION}" in examined.stdout
    assert "permissions: user " in examined.stdout
    is_postgresql = settings.store_url.startswith("postgresql")
    assert ("clock of the database: it and this machine's differ by 0." in examined.stdout) == is_postgresql

    send_task("shop.tasks.add", "acme", 2, 3).wait(20)
    eventually(lambda: "of the newest 1 tasks none started before it was sent" in examine(settings).stdout)


def test_what_is_missing_is_told_with_its_remedy(settings: Settings) -> None:
    """Without any worker, waiting tasks, the recorder, and the store are found amiss."""
    send_task("shop.tasks.tidy", "acme")
    examined = eventually(lambda: (done := examine(settings)) and "1 tasks wait" in done.stdout and done)
    assert examined.returncode == 1
    assert "-> start a worker: limetask-worker my_package --queues default" in examined.stdout
    assert "nothing was ever recorded there" in examined.stdout


def test_another_store_is_noticed(settings: Settings, start_worker: Callable[..., Worker], tmp_path: Path) -> None:
    """If the recorder writes into another store than this machine reads, that is found."""
    worker = start_worker(settings, "shop", "--processes", "1")
    other = replace(settings, store_url=f"sqlite:///{tmp_path / 'other.db'}")
    start_worker(other, "--roles", "recorder")  # it stands by, and has made the other store
    examined = eventually(lambda: (done := examine(other)) and "recorder:" in done.stdout and done)
    assert examined.returncode == 1
    assert "wrote nothing into this store" in examined.stdout
    assert f"This store is {other.store_url}, and no recorder has said that it writes there" in examined.stdout
    assert "the same LIMETASK_STORE_URL" in examined.stdout
    eventually(lambda: "with another status store" in worker.log)  # it hears the other one, which stands by
    assert other.store_url in worker.log
    assert settings.store_url in worker.log


def test_an_absent_broker_and_dead_letters_are_told(settings: Settings, tmp_path: Path) -> None:
    """A broker that is not there is one finding, without a traceback; dead letters are another; also as JSON."""
    absent = examine(replace(settings, broker_url="amqp://guest:sesame@127.0.0.1:1/"), "--json")
    assert absent.returncode == 1
    findings = {finding["check"]: finding for finding in json.loads(absent.stdout)}
    assert not findings["broker"]["is_well"]
    assert "no RabbitMQ at 127.0.0.1:1" in findings["broker"]["text"]
    assert "sesame" not in absent.stdout + absent.stderr

    assert examine(settings).returncode == 1  # which declares the queues
    with channel_to(settings.broker_url) as channel:
        channel.basic_publish(Names(settings.namespace).dead_exchange, "", b"x", pika.BasicProperties(delivery_mode=2))
    eventually(lambda: "1 messages could not be run" in examine(settings).stdout)


def test_what_cannot_be_looked_at_is_a_note(settings: Settings) -> None:
    """What limetask takes the broker's consumer timeout to be is told with the command that shows it, and not amiss."""
    examined = examine(replace(settings, consumer_timeout=7200.0), "--json")
    findings = {finding["check"]: finding for finding in json.loads(examined.stdout)}
    timeout = findings["consumer timeout"]
    assert (timeout["is_well"], timeout["is_checked"]) == (True, False)
    assert "7200 s (LIMETASK_CONSUMER_TIMEOUT)" in timeout["text"]
    assert "rabbitmqctl environment | grep consumer_timeout" in timeout["remedy"]
    assert "\nnote  consumer timeout: " in examine(settings).stdout


def test_in_a_terminal_no_line_is_too_long(settings: Settings) -> None:
    """With 80 columns what is longer goes on below, under the text and not under the mark."""
    output = _ANSI.sub("", output_in_terminal(settings, columns=80))
    assert max(map(len, output.splitlines())) <= 80
    assert "\nok    permissions: user " in output
    assert re.search(r"^ {6}\w", output, re.MULTILINE)
    assert "\namiss store: nothing was ever recorded there\n      -> start a worker" in output


_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def output_in_terminal(settings: Settings, columns: int) -> str:
    """Run the command with a terminal of this width, and return what it has written there."""
    ours, its = pty.openpty()
    command = Path(sys.executable).with_name("limetask")
    environment = environment_of(settings) | {"COLUMNS": str(columns)}
    with subprocess.Popen([command, "doctor"], env=environment, stdout=its) as process:
        os.close(its)
        output = b""
        while part := _read(ours):
            output += part
        process.wait(60)
    os.close(ours)
    return output.decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # what Linux says when the last writer has gone
        return b""
