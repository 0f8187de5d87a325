"""The client against a real broker: what it sends, what it tells, and what bad input gets."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgpack
import pytest

import limetask
from limetask import (
    ApplicationError,
    ArgumentsError,
    BrokerError,
    BrokerRefusedError,
    BrokerUnreachableError,
    BrokerUrlError,
    MessageTooLargeError,
    NotFoundError,
    SendOutcomeUnknownError,
    Settings,
    Status,
    StoreError,
    TaskCall,
    TaskNameError,
    WaitTimeoutError,
    configure,
    get_status,
    ids,
    send_task,
    send_tasks,
)
from limetask.client import close_default_client
from limetask.topology import Names
from tests.broker import channel_to, queue_length, take_all
from tests.proxy import proxy_to


def task_queue(settings: Settings, qos: str = "default") -> str:
    return Names(settings.namespace).task_queue(qos)


NO_APPLICATION: Any = object()


class CrmApplication:
    """A platform's own application object."""

    identifier = "acme"


def test_a_sent_task_waits_in_its_queue_as_the_wire_format_says(settings: Settings) -> None:
    """The message has the documented headers and body, is persistent, and its id is the status's."""
    status = send_task("a_package.tasks.add", CrmApplication(), 1, second="två")
    assert (status.status, status.app, status.task_name) == (Status.PENDING, "acme", "a_package.tasks.add")
    with channel_to(settings.broker_url) as channel:
        _, properties, body = channel.basic_get(task_queue(settings), auto_ack=True)
    assert properties.delivery_mode == 2
    assert properties.content_type == "application/msgpack"
    assert properties.message_id not in (None, status.id)
    properties.headers.pop("x-delivery-count", None)  # from brokers before RabbitMQ 4
    assert properties.headers == {
        "limetask": 1,
        "task_id": status.id,
        "task": "a_package.tasks.add",
        "app": "acme",
        "attempt": 1,
    }
    assert msgpack.unpackb(body) == {"args": [1], "kwargs": {"second": "två"}}


def test_a_declared_task_goes_to_the_queue_of_its_category(settings: Settings) -> None:
    """The sender knows the category of a task that it has declared, whether it sends it by name or itself."""
    declared = limetask.task(name=f"declared.task_{uuid.uuid4().hex}", qos="asap")(lambda_task)
    declared.send("acme")
    send_task(declared.name, "acme")
    assert len(take_all(settings.broker_url, task_queue(settings, "asap"), 2)) == 2


def lambda_task(app: limetask.Application) -> None:
    """Nothing: it is only sent."""


def test_many_are_sent_in_order(settings: Settings) -> None:
    """send_tasks returns the statuses in the order of the calls, and every message is in the queue."""
    statuses = send_tasks(TaskCall("a.task", "acme", (number,)) for number in range(2500))
    assert len({status.id for status in statuses}) == 2500
    letters = take_all(settings.broker_url, task_queue(settings), 2500)
    assert [letter.headers["task_id"] for letter in letters] == [status.id for status in statuses]


def test_nothing_is_sent_if_one_of_many_is_wrong(settings: Settings) -> None:
    """All calls are checked before the first is sent."""
    send_task("a.task", "acme")
    with pytest.raises(ArgumentsError, match="argument 1 is"):
        send_tasks([TaskCall("a.task", "acme"), TaskCall("a.task", "acme", (object(),))])
    assert queue_length(settings.broker_url, task_queue(settings)) == 1


@pytest.mark.parametrize(
    ("send", "error", "says"),
    [
        (lambda: send_task("", "acme"), TaskNameError, "needs a name"),
        (lambda: send_task("dotless", "acme"), TaskNameError, "words joined by dots"),
        (lambda: send_task("a." + "x" * 240, "acme"), TaskNameError, "242 bytes and may have 234"),
        (lambda: send_task("a.task", NO_APPLICATION), ApplicationError, "identifier"),
        (lambda: send_task("a.task", ""), ApplicationError, "printable"),
        (lambda: send_task("a.task", "acme", datetime(2026, 1, 1)), ArgumentsError, "argument 1 is a datetime without"),
        (lambda: send_task("a.task", "acme", companies={"a": [1, open]}), ArgumentsError, r"'companies'\['a'\]\[1\]"),
        (lambda: send_task("a.task", "acme", 2**64), ArgumentsError, "64 bits"),
        (lambda: send_task("a.task", "acme", "x" * 2_000_000), MessageTooLargeError, "limit is 1,048,576 bytes"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_any_connection(send: Any, error: type[Exception], says: str) -> None:
    """Bad input is told without a broker: nothing listens at the broker's address here."""
    configure(Settings(broker_url="amqp://127.0.0.1:1/"))
    with pytest.raises(error, match=says):
        send()


def test_a_wrong_url_is_told_at_once() -> None:
    """A URL that is no AMQP URL is refused with an example of a right one."""
    configure(Settings(broker_url="http://localhost:15672"))
    with pytest.raises(BrokerUrlError, match="amqp://user:password@host:5672/vhost"):
        send_task("a.task", "acme")


def test_an_absent_broker_is_an_error_within_the_deadline() -> None:
    """Nothing listens: the error says where it looked and what to do, soon after the deadline."""
    configure(Settings(broker_url="amqp://guest:secret@127.0.0.1:1/", send_timeout=1.0))
    started = time.monotonic()
    with pytest.raises(BrokerUnreachableError, match=r"no RabbitMQ at 127\.0\.0\.1:1 .*LIMETASK_BROKER_URL") as caught:
        send_task("a.task", "acme")
    assert time.monotonic() - started < 20
    assert "secret" not in str(caught.value)


def test_a_silent_broker_is_an_error_within_the_deadline() -> None:
    """Something that accepts connections and says nothing is no reason to hang."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"amqp://guest:guest@127.0.0.1:{silent.getsockname()[1]}/"
        configure(Settings(broker_url=url, send_timeout=1.0))
        started = time.monotonic()
        with pytest.raises(BrokerError):
            send_task("a.task", "acme")
        assert time.monotonic() - started < 20


def test_wrong_credentials_are_told_without_the_password(settings: Settings) -> None:
    """The broker's refusal names the user, says what to check, and comes before the deadline."""
    host = settings.broker_url.partition("@")[2]
    configure(replace(settings, broker_url=f"amqp://guest:sesame@{host}"))
    with pytest.raises(BrokerRefusedError, match="refused user 'guest'") as caught:
        send_task("a.task", "acme")
    assert "sesame" not in str(caught.value)


def test_a_cut_before_the_confirm_is_an_unknown_outcome(settings: Settings) -> None:
    """When the connection closes before the confirm, the error has the id of the task that may have been queued."""
    with proxy_to(settings.broker_url) as (proxy, url):
        configure(replace(settings, broker_url=url, send_timeout=5.0))
        send_task("a.task", "acme")
        stop = threading.Event()

        def keep_cutting() -> None:
            while not stop.wait(0.01):
                proxy.cut()

        thread = threading.Thread(target=keep_cutting)
        thread.start()
        try:
            with pytest.raises((SendOutcomeUnknownError, BrokerError)):  # noqa: PT012 - whichever send it hits
                while True:
                    send_task("a.task", "acme")
        finally:
            stop.set()
            thread.join()
        assert send_task("a.task", "acme").id  # and the client is well again


def test_the_client_comes_back_after_the_broker_was_away(settings: Settings) -> None:
    """A process that has sent before sends again once the broker is back."""
    with proxy_to(settings.broker_url) as (proxy, url):
        configure(replace(settings, broker_url=url, send_timeout=5.0))
        send_task("a.task", "acme")
        proxy.refuse()
        with pytest.raises(limetask.LimetaskError):
            send_task("a.task", "acme")
        proxy.refuse(False)
        configure(replace(settings, broker_url=url))
        send_task("a.task", "acme")


def test_pending_needs_neither_worker_nor_recorder_nor_store(settings: Settings) -> None:
    """A status can be read before anything but the broker exists, and reading it creates no file."""
    status = send_task("a.task", "acme")
    assert get_status(status.id, CrmApplication()) == replace(status, task_name=None)
    assert not Path(settings.resolved_store_url.removeprefix("sqlite:///")).exists()


@pytest.mark.parametrize(
    "task_id", ["", "nonsense", "00000000-0000-0000-0000-000000000000", "6a0b9dd5-0a61-4b77-9cf9-1f2d3c4b5a69", None, 7]
)
def test_an_id_that_is_none_is_not_found(settings: Settings, task_id: Any) -> None:
    """Malformed and unknown ids are never taken for pending ones."""
    with pytest.raises(NotFoundError, match="has no task"):
        get_status(task_id, "acme")


def test_a_foreign_or_expired_id_is_not_found(settings: Settings) -> None:
    """An id of another application, or older than the retention, is not found."""
    status = send_task("a.task", "acme")
    with pytest.raises(NotFoundError):
        get_status(status.id, "other")
    month_ago = (datetime.now(UTC) - timedelta(days=31)).timestamp()
    with pytest.raises(NotFoundError):
        get_status(ids.new_task_id("acme", month_ago), "acme")


def test_an_unreachable_store_is_an_error_of_ours(settings: Settings) -> None:
    """A PostgreSQL that is not there is a StoreError, with the password hidden."""
    configure(replace(settings, store_url="postgresql://user:sesame@127.0.0.1:1/db"))
    with pytest.raises(StoreError) as caught:
        get_status(ids.new_task_id("acme"), "acme")
    assert "sesame" not in str(caught.value)


def test_waiting_ends_at_its_timeout(settings: Settings) -> None:
    """Without a worker, wait raises TimeoutError when its time is over, and says in which state the task is."""
    status = send_task("a.task", "acme")
    with pytest.raises(TimeoutError, match=r"is PENDING after 0\.2 s"):
        status.wait(0.2)
    with pytest.raises(WaitTimeoutError):
        status.refresh().wait(0)


def test_a_forked_process_sends_on_a_connection_of_its_own(settings: Settings) -> None:
    """After a fork, both parent and child go on sending, as under gunicorn --preload."""
    send_task("a.task", "acme", "before")
    child = os.fork()
    if child == 0:
        try:
            for number in range(20):
                send_task("a.task", "acme", f"child {number}")
            close_default_client()
            os._exit(0)
        finally:
            os._exit(1)
    for number in range(20):
        send_task("a.task", "acme", f"parent {number}")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    send_task("a.task", "acme", "after")
    letters = take_all(settings.broker_url, task_queue(settings), 42)
    sent = {msgpack.unpackb(letter.body)["args"][0] for letter in letters}
    assert len(sent) == 42


def test_threads_share_one_connection(settings: Settings) -> None:
    """Eight threads send at once through one publishing connection; no message is lost or sent twice."""
    with proxy_to(settings.broker_url) as (proxy, url):
        configure(replace(settings, broker_url=url))

        def send_some() -> None:
            for _ in range(50):
                send_task("a.task", "acme")

        threads = [threading.Thread(target=send_some) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert proxy.connections == 1
    letters = take_all(settings.broker_url, task_queue(settings), 400)
    assert len({letter.headers["task_id"] for letter in letters}) == 400
