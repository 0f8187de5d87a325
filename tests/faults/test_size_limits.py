"""A broker takes smaller messages than limetask's settings allow: each refusal is for one message, and told once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from limetask import (
    BrokerRefusedError,
    MessageTooLargeError,
    PartlySentError,
    Settings,
    TaskCall,
    aio,
    configure,
    get_status,
    publish_event,
    send_task,
    send_tasks,
)
from tests.faults.conftest import OpenLedger, StartWorker
from tests.faults.form import in_form
from tests.faults.ledger import now
from tests.faults.load import Load
from tests.faults.nodes import Node
from tests.waiting import eventually

_LIMIT = 100_000
_TOLD = f"larger than the broker takes, {_LIMIT:,} bytes"
_BULKY = ("faulty.tasks.bulky", "faulty.tasks.bulky_late")


@pytest.fixture
def small_broker(own_broker: Node) -> Iterator[Node]:
    """A broker that takes messages of 100 kB at most, on each channel that is opened from now on."""
    set_limit(own_broker, _LIMIT)
    yield own_broker
    set_limit(own_broker, 128 * 1024**2)


def set_limit(broker: Node, limit: int) -> None:
    broker.ctl("eval", f"application:set_env(rabbit, max_message_size, {limit}).")


@pytest.mark.parametrize("size", [_LIMIT - 100, 10 * _LIMIT])
def test_a_result_that_the_broker_does_not_take_is_a_failure(
    small_broker: Node, own_broker_settings: Settings, open_ledger: OpenLedger, employ: StartWorker, size: int
) -> None:
    """Its task fails with ResultError, as an event too, which says how large it was; all others succeed."""
    ledger = open_ledger(own_broker_settings)
    worker = employ(ledger, "--processes", "1", "--slots", "4")
    with Load(ledger.book, in_form(100, 1000), in_form(80, 200)):
        bulky = [ledger.book.send(name, size) for name in _BULKY * 4]
        all_sent = now()
    verdict = ledger.check("results that the broker does not take", all_sent)
    assert verdict.failures == {"ResultError": len(bulky)}
    for sent in bulky:
        assert sent is not None
        error = get_status(sent.task_id, sent.app).error
        assert error is not None
        assert _TOLD in error.message
        assert len({event.fields["id"] for event in ledger.events.by_task[sent.task_id]}) == 1
    assert 0 < worker.log.count("the connection to the broker is lost") < len(bulky), worker.log


def test_a_traceback_that_the_broker_does_not_take_is_left_out(
    own_broker: Node, own_broker_settings: Settings, open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """A failure stays the failure that it was, with the beginning of its message."""
    ledger = open_ledger(own_broker_settings)
    set_limit(own_broker, 8000)
    try:
        employ(ledger, "--processes", "1")
        sent = ledger.book.send("faulty.tasks.wordy", 9000)
        assert sent is not None
        ledger.check("a failure that the broker does not take", now())
    finally:
        set_limit(own_broker, 128 * 1024**2)
    error = get_status(sent.task_id, sent.app).error
    assert error is not None
    assert error.type == "ValueError"
    assert error.message.startswith("word word word")
    assert "larger than the broker takes, 8,000 bytes" in error.message


def test_starts_that_do_not_fit_into_one_message_are_told_in_several(
    own_broker: Node, own_broker_settings: Settings, open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """Tasks that begin together share a message. It is halved, and the connection is not lost with each."""
    ledger = open_ledger(own_broker_settings)
    set_limit(own_broker, 1500)
    try:
        with Load(ledger.book, in_form(200, 1000), rate=1000, seconds=0.01):
            pass
        all_sent = now()
        worker = employ(ledger, "--processes", "1", "--slots", "16")
        verdict = ledger.check("starts that the broker does not take together", all_sent)
    finally:
        set_limit(own_broker, 128 * 1024**2)
    assert not verdict.failures
    assert "larger than the broker takes, 1,500 bytes" in worker.log, "all starts were alone"
    assert worker.log.count("the connection to the broker is lost") < 6, worker.log


def test_an_end_that_outlived_its_process_is_told_as_a_failure_too(
    small_broker: Node, own_broker_settings: Settings, open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """The process dies with the end of its task untold, in an alarm: its supervisor meets the limit, and tells."""
    ledger = open_ledger(own_broker_settings)
    worker = employ(ledger, "--processes", "1")
    release = ledger.book.trace.with_name("release")
    sent = ledger.book.send("faulty.tasks.bulky_when_released", str(release), 5 * _LIMIT)
    assert sent is not None
    ledger.wait_for_starts(1)
    [pid] = worker.child_pids()
    small_broker.ctl("set_disk_free_limit", "9000GB")
    try:
        release.touch()
        eventually(lambda: _kept_bytes(pid) > 5 * _LIMIT, what="an end that is kept")
        os.kill(pid, signal.SIGKILL)
    finally:
        small_broker.ctl("set_disk_free_limit", "50MB")
    verdict = ledger.check("an end that the broker does not take, of a dead process", now())
    assert verdict.failures == {"ResultError": 1}
    error = get_status(sent.task_id, sent.app).error
    assert error is not None
    assert _TOLD in error.message


def _kept_bytes(pid: int) -> int:
    """How many bytes are in the memory that a task process shares with its supervisor for ends that wait."""
    outboxes = [file for file in Path(f"/proc/{pid}/fd").iterdir() if "limetask-outbox" in str(file.readlink())]
    return max((file.stat().st_size for file in outboxes), default=0)


def test_a_send_that_the_broker_does_not_take_raises_at_once(small_broker: Node, own_broker_settings: Settings) -> None:
    """Tasks and events alike, the first time and the next; what others send at the same time is sent."""
    configure(own_broker_settings)
    with ThreadPoolExecutor(4) as pool:
        others = [pool.submit(send_task, "a.task", "acme", number) for number in range(in_form(50, 500))]
        for _ in range(3):
            with pytest.raises(MessageTooLargeError, match=_TOLD) as raised:
                send_task("a.task", "acme", b"x" * _LIMIT)
            assert isinstance(raised.value, BrokerRefusedError)
            with pytest.raises(MessageTooLargeError, match=_TOLD):
                publish_event("acme", "shop.order.paid.v1", "x" * (_LIMIT - 10))
        assert len({other.result().id for other in others}) == len(others)


def test_the_first_event_that_the_broker_does_not_take_raises_at_once(
    small_broker: Node, own_broker_settings: Settings
) -> None:
    """Nothing of the limit is known yet."""
    configure(own_broker_settings)
    with pytest.raises(MessageTooLargeError, match=_TOLD):
        publish_event("acme", "shop.order.paid.v1", "x" * (_LIMIT - 10))
    publish_event("acme", "shop.order.paid.v1", "x")


def test_a_send_of_the_asyncio_client_raises_at_once(small_broker: Node, own_broker_settings: Settings) -> None:
    """The same in limetask.aio."""
    configure(own_broker_settings)

    async def main() -> None:
        others = [asyncio.ensure_future(aio.send_task("a.task", "acme", number)) for number in range(50)]
        for _ in range(2):
            with pytest.raises(MessageTooLargeError, match=_TOLD):
                await aio.send_task("a.task", "acme", b"x" * _LIMIT)
            with pytest.raises(MessageTooLargeError, match=_TOLD):
                await aio.publish_event("acme", "shop.order.paid.v1", "x" * (_LIMIT - 10))
        assert len({(await other).id for other in others}) == len(others)
        await aio.close()

    asyncio.run(main())


async def _send_tasks_async(calls: list[TaskCall]) -> None:
    try:
        await aio.send_tasks(calls)
    finally:
        await aio.close()


@pytest.mark.parametrize(
    "send", [send_tasks, lambda calls: asyncio.run(_send_tasks_async(calls))], ids=["limetask", "limetask.aio"]
)
def test_a_bulk_with_one_that_the_broker_does_not_take_says_so(
    small_broker: Node, own_broker_settings: Settings, send: Callable[[list[TaskCall]], object]
) -> None:
    """Which tasks are surely there is told, and why the sending has ended."""
    configure(own_broker_settings)
    calls = [TaskCall("a.task", "acme", [number]) for number in range(20)]
    calls[10] = TaskCall("a.task", "acme", [b"x" * _LIMIT])
    with pytest.raises(PartlySentError, match=_TOLD) as raised:
        send(calls)
    assert len(raised.value.sent) + len(raised.value.unconfirmed) == len(calls)


def test_a_limit_that_is_raised_is_found_out(own_broker: Node, own_broker_settings: Settings) -> None:
    """The broker starts again with a higher limit: what it had refused is sent."""
    configure(own_broker_settings)
    set_limit(own_broker, _LIMIT)
    with pytest.raises(MessageTooLargeError):
        send_task("a.task", "acme", b"x" * _LIMIT)
    own_broker.kill()
    own_broker.up()
    eventually(lambda: _is_sent(b"x" * _LIMIT), what="a send that returns")


def _is_sent(argument: bytes) -> bool:
    try:
        send_task("a.task", "acme", argument)
    except BrokerRefusedError:
        return False  # it has not noticed yet that the broker was away
    return True
