"""Strange messages in every queue: each is set aside with its reason, and everything else goes on."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
from click.testing import CliRunner

from limetask import Settings, aio, ids, publish_event, send_task
from limetask.cli.command import limetask as command
from limetask.client import default_client
from limetask.dead_letters import ALL, DeadLetter, list_dead_letters, purge, retry, show
from limetask.delays import routing_key
from limetask.message import MessageKind
from limetask.topology import Names, delay_topology
from tests.acceptance.test_refusals import headers_of
from tests.broker import channel_to, declare_namespace, queue_length, take_all
from tests.loops import run
from tests.strange import RawProperties, deep_array, deep_table, field, long_text, strange_fields, table
from tests.waiting import eventually
from tests.worker import Worker

BODY = msgpack.packb({"args": [1, 2], "kwargs": {}})
EVENT = {"id": "one", "routing_key": "shop.strange", "app": "acme", "body": None}
HANDLER_QUEUE = "listeners.several"


def task_table(*more: tuple[str | bytes, bytes], **headers: Any) -> bytes:
    """The headers of a good task, and more."""
    own = headers_of(ids.new_task_id("acme")) | headers
    return table([*((name, field(value)) for name, value in own.items()), *more])


def publish(settings: Settings, exchange: str, key: str, body: bytes, properties: RawProperties) -> None:
    with channel_to(settings.broker_url) as channel:
        channel.basic_publish(exchange, key, body, properties)


def publish_task(settings: Settings, headers: bytes, body: bytes = BODY, **properties: Any) -> None:
    names = Names(settings.namespace)
    told = RawProperties(headers, **({"content_type": "application/msgpack"} | properties))
    publish(settings, names.tasks_exchange, names.task_queue("default"), body, told)


def dead_letters(settings: Settings, count: int) -> list[DeadLetter]:
    """The dead letters, once there are so many and nothing else is on its way."""
    queue = Names(settings.namespace).dead_queue
    eventually(lambda: queue_length(settings.broker_url, queue) >= count, 30, f"{count} dead letters")
    return list_dead_letters()


def json_of(*arguments: str) -> Any:
    """What the command prints in this process, which must be JSON."""
    ran = CliRunner().invoke(command, [*arguments, "--json"], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    return json.loads(ran.stdout)


@pytest.fixture
def traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the handlers of `listeners` leave their traces."""
    monkeypatch.setenv("LISTENERS_TRACES", str(tmp_path))
    return tmp_path


@pytest.fixture
def everything(settings: Settings, start_worker: Callable[..., Worker], traces: Path) -> Worker:
    """A worker with tasks, a recorder and handlers."""
    declare_namespace(settings.broker_url, settings.namespace)
    return start_worker(settings, "shop", "listeners", "--processes", "1")


def all_goes_on(settings: Settings, traces: Path) -> None:
    """Tasks run and are recorded, and handlers are called."""
    before = _calls(traces)
    done = send_task("listeners.count", "acme", 1)
    assert done.wait(30).result == 1
    eventually(lambda: done.refresh().is_completed(), 30, "the recorder's work")
    publish_event("acme", "shop.order.paid.v1", "paid")
    eventually(lambda: _calls(traces) >= before + 2, 30, "the handler's calls")


def _calls(traces: Path) -> int:
    file = traces / "several"
    return len(file.read_text().splitlines()) if file.exists() else 0


@pytest.mark.parametrize("deep", [deep_array, deep_table])
def test_headers_that_are_nested_deeply_stop_nothing(
    settings: Settings, everything: Worker, traces: Path, deep: Callable[[], bytes]
) -> None:
    """As a task, a record and an event: each is a dead letter with the reason; the good headers beside it are kept."""
    names = Names(settings.namespace)
    publish_task(settings, task_table(("deep", deep())))
    publish(settings, "", names.results_queue, b"[]", RawProperties(table([("deep", deep())]), type="started"))
    event = json.dumps(EVENT).encode()
    publish(settings, names.events_exchange, "shop.strange", event, RawProperties(table([("deep", deep())])))
    letters = dead_letters(settings, 3)
    assert sorted(letter.kind for letter in letters) == ["event", "record", "task"]
    assert all("header 'deep' is nested more than" in letter.reason for letter in letters)
    [task] = [letter for letter in letters if letter.kind == "task"]
    assert (task.task_name, task.app) == ("shop.tasks.add", "acme")
    assert "the connection to the broker is lost" not in everything.log
    all_goes_on(settings, traces)
    assert len(json_of("dead", "list")) == 3
    assert "left out" in json_of("dead", "show", task.id)["headers"]["deep"]
    assert retry([task.id]).count == 1
    assert send_task("shop.tasks.add", "acme", 2, 3).wait(30).result == 5
    assert len(dead_letters(settings, 2)) == 2


def test_a_deep_header_that_the_broker_itself_set_aside(settings: Settings) -> None:
    """It was never in a worker's hands: it can be listed, shown, retried and purged all the same."""
    declare_namespace(settings.broker_url, settings.namespace)
    names = Names(settings.namespace)
    wanted = delay_topology(names, 1)
    with channel_to(settings.broker_url) as channel:
        for exchange in wanted.exchanges:
            channel.exchange_declare(exchange.name, exchange.kind, durable=True)
        for queue in wanted.queues:
            channel.queue_declare(queue.name, durable=True, arguments=dict(queue.arguments))
        for binding in wanted.bindings:
            channel.queue_bind(binding.queue, binding.exchange, binding.routing_key)
        for way in wanted.exchange_bindings:
            channel.exchange_bind(way.destination, way.exchange, way.routing_key)
    deep = RawProperties(task_table(("deep", deep_array())), content_type="application/msgpack")
    publish(settings, names.delay(0), routing_key(1, "nowhere"), BODY, deep)
    publish(settings, names.dead_exchange, "", b"foreign", RawProperties(table([("deep", deep_table())])))
    letters = dead_letters(settings, 2)
    assert sorted(letter.kind for letter in letters) == ["foreign", "task"]
    for letter in letters:
        assert "nested more than" in json_of("dead", "show", letter.id)["headers"]["deep"]
    assert retry(ALL).count == 1
    [again] = take_all(settings.broker_url, names.task_queue("default"), 1)
    assert again.headers["attempt"] == 2
    assert purge(ALL).count == 1
    with channel_to(settings.broker_url) as channel:
        channel.queue_delete(names.delay(0))
        channel.exchange_delete(names.delay(0))


@pytest.mark.parametrize("size", [60_000, 70_000, 100_000, 130_000])
def test_a_header_that_leaves_no_room_in_its_letter_is_shortened(
    settings: Settings, everything: Worker, traces: Path, size: int
) -> None:
    """Headers travel in one frame. Body, reason and whatever is small are kept; what is too long is cut."""
    big = long_text("x" * size)
    publish_task(settings, task_table(("big", big), task="shop.tasks.forgotten"), b"body of a task")
    publish_task(settings, table([("limetask", big)]), b"a reason that quotes it")
    publish_task(settings, table([("big", big), ("other", field("kept"))]), b"foreign")
    letters = {show(letter.id).body: show(letter.id) for letter in dead_letters(settings, 3)}
    assert letters[b"foreign"].headers["other"] == "kept"
    assert letters[b"body of a task"].letter.task_name == "shop.tasks.forgotten"
    assert "unknown task" in letters[b"body of a task"].letter.reason
    assert letters[b"body of a task"].headers["big"].startswith("x" * 60_000)
    assert "the connection to the broker is lost" not in everything.log
    all_goes_on(settings, traces)


def test_a_task_whose_name_or_application_is_endless_is_set_aside(
    settings: Settings, everything: Worker, traces: Path
) -> None:
    """No event could bear such a name: no end is published for it, and nothing is published again and again."""
    publish_task(settings, task_table(task="shop." + "x" * 70_000))
    app = "a" * 70_000
    publish_task(settings, task_table(task_id=ids.new_task_id(app), app=app))
    reasons = [letter.reason for letter in dead_letters(settings, 2)]
    assert sum("header 'task'" in reason and "longer than" in reason for reason in reasons) == 1
    assert sum("header 'app'" in reason and "longer than" in reason for reason in reasons) == 1
    assert all(len(reason) < 3000 for reason in reasons)
    all_goes_on(settings, traces)


@pytest.mark.parametrize("seed", range(3))
def test_any_headers_in_any_queue(settings: Settings, everything: Worker, traces: Path, seed: int) -> None:
    """Generated headers of every type, on messages of every kind, in all queues: the system works on."""
    chance = random.Random(seed)
    names = Names(settings.namespace)
    with channel_to(settings.broker_url) as channel:
        for level in delay_topology(names, 1).exchanges:
            channel.exchange_declare(level.name, level.kind, durable=True)
    places = [
        (names.tasks_exchange, names.task_queue("default")),
        ("", names.results_queue),
        ("", names.handler_queue(HANDLER_QUEUE)),
        ("", names.dead_queue),
        ("", names.delayed_exchange),
        (names.completions_exchange, "core.task.strange"),
        (names.delayed_exchange, routing_key(1, names.task_queue("asap"))),
    ]
    kinds = [None, *MessageKind, "amqp-1.0", b"\xff" * 255]
    bodies = [b"", b"\xff", b"{}", b"[]", b"[[]]", b"[" * 900 + b"]" * 900, BODY, b'{"workers":[[1]]}', b"\x91" * 900]
    with channel_to(settings.broker_url) as channel:
        for exchange, key in places:
            for kind in kinds:
                content_type = chance.choice([None, "application/json", "application/msgpack", b"\xff" * 255])
                told = RawProperties(
                    table(strange_fields(chance)),
                    type=kind,
                    content_type=content_type,
                    timestamp=chance.choice([None, 2**60]),
                )
                channel.basic_publish(exchange, key, chance.choice(bodies), told)
    all_goes_on(settings, traces)
    for letter in json_of("dead", "list"):
        assert letter["reason"]
    for letter in list_dead_letters()[::5]:
        json_of("dead", "show", letter.id)
    left = retry(ALL).refused
    all_goes_on(settings, traces)
    assert purge(ALL).count >= len(left)
    for line in ("the connection to the broker is lost", "Traceback", "publishing again"):
        assert line not in everything.log


def test_aio_subscriptions_go_on(settings: Settings) -> None:
    """A live one ignores the message, a durable one sets it aside, and both hear what comes after."""
    names = Names(settings.namespace)
    tables = [table([("deep", deep_array())]), table([("deep", deep_table())])]
    tables += [table(strange_fields(random.Random(seed))) for seed in range(30)]

    async def main() -> None:
        async with aio.subscribe("shop.#", durable="audit") as durable, aio.subscribe("shop.#") as live:
            for number, headers in enumerate(tables):
                good = json.dumps(EVENT | {"id": str(number)}).encode()
                told = RawProperties(headers, content_type=b"\xff" * 255, type=b"\xfe", timestamp=2**63)
                await asyncio.to_thread(publish, settings, names.events_exchange, "shop.strange", good, told)
            await aio.publish_event("acme", "shop.last.v1", "last")
            for events in (live, durable):
                heard = [await anext(events)]
                while heard[-1].routing_key != "shop.last.v1":
                    heard.append(await anext(events))
                assert len(heard) == len(tables) - 2 + 1

            assert live.gaps == 0

    try:
        run(main())
        reasons = [letter.reason for letter in dead_letters(settings, 2)]
        assert len(reasons) == 2
        assert all("header 'deep' is nested more than" in reason for reason in reasons)
    finally:
        with channel_to(settings.broker_url) as channel:
            channel.queue_delete(names.handler_queue("audit"))


def test_a_reply_queue_hears_on(
    settings: Settings, everything: Worker, traces: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What comes under a sender's reply key, and is no end or has deep headers, keeps no sender from its ends."""
    first = send_task("shop.tasks.add", "acme", 1, 2)
    assert first.wait(30).result == 3
    names = Names(settings.namespace)
    with channel_to(settings.broker_url) as channel:
        for headers in (deep_array(), deep_table()):
            told = RawProperties(table([("deep", headers)]))
            channel.basic_publish(names.events_exchange, _reply_key_of_this_process(), b"{}", told)
    assert send_task("shop.tasks.add", "acme", 2, 2).wait(30).result == 4
    all_goes_on(settings, traces)
    assert "the connection to the broker is lost" not in everything.log + caplog.text


def _reply_key_of_this_process() -> str:
    return default_client()._reply_key
