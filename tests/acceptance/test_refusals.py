"""Messages that must not run: never run, never lost, never redelivered for ever."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgpack
import pika
import pytest

from limetask import Settings, Status, get_status, ids, send_task
from limetask.dead_letters import ALL, retry
from limetask.topology import Names
from tests.broker import channel_to, declare_namespace, queue_length, subscriber, take_all
from tests.waiting import eventually
from tests.worker import Worker

GOOD_BODY = msgpack.packb({"args": [], "kwargs": {}})


def headers_of(task_id: str, **other: Any) -> dict[str, Any]:
    headers = {"limetask": 1, "task_id": task_id, "task": "shop.tasks.add", "app": "acme", "attempt": 1}
    return headers | other


def publish(settings: Settings, headers: Mapping[str, Any], body: bytes, content_type: str) -> None:
    names = Names(settings.namespace)
    with channel_to(settings.broker_url) as channel:
        properties = pika.BasicProperties(headers=dict(headers), content_type=content_type, delivery_mode=2)
        channel.basic_publish(names.tasks_exchange, names.task_queue("default"), body, properties)


def test_what_must_not_run_is_set_aside_with_its_reason(
    settings: Settings, start_worker: Callable[..., Worker]
) -> None:
    """Foreign and undecodable messages are dead-lettered; where the id is known, FAILURE and its event follow."""
    declare_namespace(settings.broker_url, settings.namespace)
    names = Names(settings.namespace)
    unreadable, strange, future = (ids.new_task_id("acme") for _ in range(3))
    msgpack_type = "application/msgpack"
    publish(settings, {}, b"hello", "text/plain")
    publish(settings, headers_of(future, limetask=2), GOOD_BODY, msgpack_type)
    publish(settings, headers_of(ids.new_task_id("umbrella")), GOOD_BODY, msgpack_type)
    publish(settings, headers_of("nonsense"), GOOD_BODY, msgpack_type)
    publish(settings, headers_of(unreadable), b"\xc1\xc1\xc1", msgpack_type)
    publish(settings, headers_of(strange), msgpack.packb([1, 2, 3]), msgpack_type)
    with subscriber(settings.broker_url, settings.namespace) as events:
        start_worker(settings, "shop", "--processes", "1")
        failed = events.wait_for(2)
        letters = take_all(settings.broker_url, names.dead_queue, 6)
    reasons = [letter.headers["reason"] for letter in letters]
    assert any("has no header 'limetask'" in reason for reason in reasons)
    assert any("another version" in reason for reason in reasons)
    assert sum("was not made for application 'acme'" in reason for reason in reasons) == 2
    assert any("not valid msgpack" in reason for reason in reasons)
    assert any("not {args, kwargs}" in reason for reason in reasons)
    assert b"hello" in [letter.body for letter in letters]
    assert {event["task_id"] for event in failed} == {unreadable, strange}
    status = eventually(lambda: (read := get_status(unreadable, "acme")).is_completed() and read)
    assert status.status is Status.FAILURE
    assert status.error is not None
    assert "not valid msgpack" in status.error.message
    assert get_status(future, "acme").status is Status.PENDING
    assert queue_length(settings.broker_url, names.task_queue("default")) == 0


def test_a_message_with_strange_headers_is_set_aside(
    settings: Settings, start_worker: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Headers that no Python value can hold do not cut the worker's connection; the message is dead-lettered."""
    declare_namespace(settings.broker_url, settings.namespace)
    names = Names(settings.namespace)
    monkeypatch.setattr(pika.data, "encode_value", encode_far_future)
    strange = {"at": FarFuture(), "broken \udcff".encode("utf-8", "surrogateescape").decode("latin-1"): 1}
    publish(settings, strange, b"hello", "text/plain")
    start_worker(settings, "shop", "--processes", "1")
    status = send_task("shop.tasks.add", "acme", 1, 2)
    assert status.wait(20).result == 3
    [letter] = take_all(settings.broker_url, names.dead_queue, 1)
    assert letter.body == b"hello"
    assert letter.headers["original"]["at"] is None


class FarFuture:
    """A time that AMQP can carry and Python cannot hold."""


def encode_far_future(pieces: list[bytes], value: Any) -> int:
    """Encode a header's value as pika does, and a FarFuture as other clients might."""
    if not isinstance(value, FarFuture):
        size: int = _encode_value(pieces, value)
        return size
    pieces.append(struct.pack(">cQ", b"T", 2**60))
    return 9


_encode_value = pika.data.encode_value


def test_an_unknown_task_fails_and_is_kept(settings: Settings, start_worker: Callable[..., Worker]) -> None:
    """A task that no package declares is FAILURE with that reason, and its message can still be seen."""
    start_worker(settings, "shop", "--processes", "1")
    status = eventually(lambda: (read := send_and_read(settings)).is_completed() and read)
    assert status.error is not None
    assert (status.status, status.error.type) == (Status.FAILURE, "UnknownTaskError")
    assert "no task 'shop.tasks.forgotten'" in status.error.message
    [letter, *_] = take_all(settings.broker_url, Names(settings.namespace).dead_queue, 1)
    assert letter.headers["reason"] == status.error.message
    assert letter.headers["original"]["task"] == "shop.tasks.forgotten"
    assert msgpack.unpackb(letter.body) == {"args": [1], "kwargs": {}}


def send_and_read(settings: Settings) -> Any:
    return send_task("shop.tasks.forgotten", "acme", 1).wait(20)


def test_a_lost_late_task_that_comes_to_a_worker_without_it_fails_and_is_kept(
    settings: Settings, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """It was running elsewhere, and is delivered again: FAILURE, and not STARTED for ever; it can be retried."""
    first = start_worker(settings, "shop", "--processes", "1")
    status = send_task("shop.tasks.hold_late", "acme", str(tmp_path / "trace"))
    eventually(lambda: status.refresh().status is Status.STARTED)
    first.kill()
    without = start_worker(settings, "my_package", "--processes", "1")
    failed = eventually(lambda: (read := status.refresh()).is_completed() and read, 30)
    assert failed.error is not None
    assert (failed.status, failed.error.type) == (Status.FAILURE, "UnknownTaskError")
    assert without.stop() == 0
    (tmp_path / "trace.release").touch()
    start_worker(settings, "shop", "--processes", "1")
    assert retry(ALL).count == 1
    eventually(lambda: (read := status.refresh()).status is Status.SUCCESS and read.attempt == 2, 30)


def test_an_unknown_application_fails_and_is_kept(
    settings: Settings, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """The factory's UnknownApplicationError dead-letters early and late tasks alike; neither runs."""
    factory = "platform_applications:open_application"
    start_worker(settings, "shop", "--processes", "1", LIMETASK_APPLICATION_FACTORY=factory)
    early = send_task("shop.tasks.hold", "nobody", str(tmp_path / "trace")).wait(20)
    late = send_task("shop.tasks.hold_late", "nobody", str(tmp_path / "trace")).wait(20)
    for status in (early, late):
        assert status.status is Status.FAILURE
        assert status.error is not None
        assert status.error.message == "unknown application: this platform has no application 'nobody'"
    assert not (tmp_path / "trace").exists()
    letters = take_all(settings.broker_url, Names(settings.namespace).dead_queue, 2)
    assert {letter.headers["original"]["app"] for letter in letters} == {"nobody"}


def test_the_factory_opens_and_closes_an_application_for_every_run(
    settings: Settings, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """A context manager from the factory is entered before the body and left after it, also when it fails."""
    factory = "platform_applications:open_application"
    start_worker(settings, "shop", "--processes", "1", "--slots", "1", LIMETASK_APPLICATION_FACTORY=factory)
    assert send_task("shop.tasks.echo", "umbrella").wait(20).result == ["umbrella", [], {}]
    send_task("shop.tasks.fail", "acme", "no").wait(20)
    send_task("shop.tasks.nap", "acme", 0).wait(20)
    traces = eventually(
        lambda: (lines := (tmp_path / "applications.log").read_text().splitlines()) and len(lines) == 6 and lines
    )
    assert traces == ["open umbrella", "close umbrella"] + ["open acme", "close acme"] * 2


def test_foreign_records_do_not_stop_the_recorder(settings: Settings, start_worker: Callable[..., Worker]) -> None:
    """What other programs publish among the completions reaches the recorder, which sets it aside and goes on."""
    declare_namespace(settings.broker_url, settings.namespace)
    names = Names(settings.namespace)
    with channel_to(settings.broker_url) as channel:
        channel.basic_publish(names.completions_exchange, "core.task.rogue", b"{}", pika.BasicProperties())
        channel.basic_publish(
            names.completions_exchange, "core.task.rogue", b'{"task_id": 1}', pika.BasicProperties(type="completion")
        )
        channel.basic_publish("", names.results_queue, b"[[]]", pika.BasicProperties(type="started"))
    start_worker(settings, "shop", "--processes", "1")
    status = send_task("shop.tasks.add", "acme", 1, 2)
    eventually(lambda: status.refresh().is_completed())
    reasons = [letter.headers["reason"] for letter in take_all(settings.broker_url, names.dead_queue, 3)]
    assert any("unknown kind None" in reason for reason in reasons)
    assert sum("not a" in reason and "record" in reason for reason in reasons) == 2
