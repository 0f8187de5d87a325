"""docs/events.md, followed to the letter: its programs run, what it shows is what is printed, logged and allowed."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pika.exceptions import ChannelClosedByBroker

from limetask import Settings, Status
from limetask.events import decode_event
from limetask.message import Envelope
from tests.acceptance.test_readme import ROOT, blocks, files, logged, programs, run_program, write_files
from tests.broker import channel_to, declare_namespace
from tests.integration.test_permissions import OwnBroker
from tests.waiting import eventually
from tests.worker import Worker

PAGE = ROOT / "docs" / "events.md"
PASSWORD = "s3cret-of-the-test"
COMMAND = re.compile(r"^rabbitmqctl (set_(?:topic_)?permissions .*)$", re.MULTILINE)


def test_the_programs_work(settings: Settings, start_worker: Callable[..., Worker], tmp_path: Path) -> None:
    """Every program prints what the page says it prints, and the worker logs what the page says it logs."""
    write_files(PAGE, tmp_path)
    worker = start_worker(settings, "my_package", "--processes", "1")
    assert (len(files(PAGE)), len(programs(PAGE))) == (3, 3)
    for program, shown in programs(PAGE):
        ran = run_program(settings, program, tmp_path)
        assert (ran.stdout, ran.stderr) == (shown, "")
    assert len(logged(PAGE)) == 4
    for line in logged(PAGE):
        eventually(lambda line=line: line in worker.log, what=line)  # type: ignore[misc]
    assert Counter(re.findall(r"booked|ignored", worker.log)) == {"booked": 2, "ignored": 1}


def test_the_examples_of_events_are_events() -> None:
    """Both JSON examples can be read, and have the fields that the page lists."""
    shown = [text for language, text in blocks(PAGE) if language == "json"]
    ended, own = (decode_event(Envelope(text.encode(), "application/json")) for text in shown)
    assert (ended.status, ended.app, ended.routing_key) == (
        Status.FAILURE,
        "acme",
        "core.task.my_package.tasks.charge.failure.v1",
    )
    assert (own.routing_key, own.app, own.body) == ("shop.order.paid.v1", "acme", {"order": 18, "amount": 120})
    assert set(own.raw) == {"id", "routing_key", "app", "body", "sent_at", "cause"}


def test_the_table_has_every_field() -> None:
    """The table of an event's fields is complete, and names nothing else."""
    table = PAGE.read_text().partition("| field of `Event`")[2].partition("\n\n")[0]
    named = re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in table.splitlines()[2:]))
    event = decode_event(Envelope(json.dumps(_OWN).encode(), "application/json"))
    assert sorted(named) == sorted(event.__slots__)


_OWN = {"id": "e-1", "routing_key": "shop.closed", "app": "acme", "body": None}


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnBroker]:
    """A broker whose users this test may change."""
    started = OwnBroker(tmp_path_factory.mktemp("services"))
    try:
        started.up()
        yield started
    finally:
        started.down()


def test_topic_permissions_restrict_what_the_page_says(own_broker: OwnBroker) -> None:
    """The user of the page binds and publishes what it is said to, and nothing else."""
    url = own_broker.up()
    declare_namespace(url, "limetask")
    own_broker.ctl("add_user", "billing", PASSWORD)
    commands = COMMAND.findall(PAGE.read_text())
    assert len(commands) == 2
    for command in commands:
        own_broker.ctl(*shlex.split(command))
    billing_url = (
        urlsplit(url)._replace(netloc=f"billing:{PASSWORD}@{urlsplit(url).netloc.rpartition('@')[2]}").geturl()
    )
    assert [key for key in ("core.task.billing.#", "billing.#") if not may_bind(billing_url, key)] == []
    assert [key for key in ("#", "core.task.#", "shop.#", "core.task.crm.#") if may_bind(billing_url, key)] == []
    assert may_publish(billing_url, "billing.invoice.sent.v1")
    assert [key for key in ("shop.x", "core.task.billing.x.success.v1") if may_publish(billing_url, key)] == []


def may_bind(url: str, pattern: str) -> bool:
    """Whether the broker lets this user bind a queue of its own to events."""
    with channel_to(url) as channel:
        queue = channel.queue_declare("", exclusive=True).method.queue
        try:
            channel.queue_bind(queue, "limetask.events", pattern)
        except ChannelClosedByBroker:
            return False
    return True


def may_publish(url: str, key: str) -> bool:
    """Whether the broker lets this user publish an event."""
    with channel_to(url) as channel:
        try:
            channel.basic_publish("limetask.events", key, b"{}")
        except ChannelClosedByBroker:
            return False
    return True
