"""What both clients promise, `limetask` and `limetask.aio`: the same tests, against each."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

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
    EventError,
    MessageTooLargeError,
    NotFoundError,
    Settings,
    Status,
    TaskCall,
    TaskNameError,
    TaskStatus,
    UnroutableError,
    UsageError,
    WaitTimeoutError,
    aio,
    configure,
    ids,
)
from limetask.client import STATUS_READER, close_default_client
from limetask.store import Store
from limetask.topology import Names
from tests.broker import channel_to, declare_namespace, queue_length, subscriber, take_all
from tests.integration.test_tls import Authority, over_tls, tls_proxy
from tests.proxy import Proxy, proxy_to
from tests.waiting import eventually
from tests.worker import Worker


class Client(Protocol):
    """What both offer, as plain calls."""

    def send(self, task: str, app: Any, *args: Any, **kwargs: Any) -> TaskStatus: ...
    def send_many(self, calls: Sequence[TaskCall]) -> list[TaskStatus]: ...
    def status(self, task_id: str | uuid.UUID, app: Any) -> TaskStatus: ...
    def wait(self, status: TaskStatus, timeout: float) -> TaskStatus: ...
    def wait_all(self, statuses: Sequence[TaskStatus], timeout: float) -> list[TaskStatus]: ...
    def publish_event(self, app: Any, routing_key: str, body: Any) -> str: ...
    def forget(self) -> None: ...


class SyncClient:
    """`limetask` itself."""

    def send(self, task: str, app: Any, *args: Any, **kwargs: Any) -> TaskStatus:
        return limetask.send_task(task, app, *args, **kwargs)

    def send_many(self, calls: Sequence[TaskCall]) -> list[TaskStatus]:
        return limetask.send_tasks(calls)

    def status(self, task_id: str | uuid.UUID, app: Any) -> TaskStatus:
        return limetask.get_status(task_id, app)

    def wait(self, status: TaskStatus, timeout: float) -> TaskStatus:
        return status.wait(timeout)

    def wait_all(self, statuses: Sequence[TaskStatus], timeout: float) -> list[TaskStatus]:
        return limetask.wait_all(statuses, timeout)

    def publish_event(self, app: Any, routing_key: str, body: Any) -> str:
        return limetask.publish_event(app, routing_key, body)

    def forget(self) -> None:
        """Be as a process that has sent nothing."""
        close_default_client()


class AioClient:
    """`limetask.aio`, all calls on one loop."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._run = runner.run

    def send(self, task: str, app: Any, *args: Any, **kwargs: Any) -> TaskStatus:
        return self._run(aio.send_task(task, app, *args, **kwargs))

    def send_many(self, calls: Sequence[TaskCall]) -> list[TaskStatus]:
        return self._run(aio.send_tasks(calls))

    def status(self, task_id: str | uuid.UUID, app: Any) -> TaskStatus:
        return self._run(aio.get_status(task_id, app))

    def wait(self, status: TaskStatus, timeout: float) -> TaskStatus:
        return self._run(aio.wait(status, timeout))

    def wait_all(self, statuses: Sequence[TaskStatus], timeout: float) -> list[TaskStatus]:
        return self._run(aio.wait_all(statuses, timeout))

    def publish_event(self, app: Any, routing_key: str, body: Any) -> str:
        return self._run(aio.publish_event(app, routing_key, body))

    def forget(self) -> None:
        """Be as a loop that has sent nothing."""
        self._run(aio.close())


@pytest.fixture(params=["limetask", "limetask.aio"])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    """Each of both."""
    if request.param == "limetask":
        yield SyncClient()
        return
    with asyncio.Runner() as runner:
        yield AioClient(runner)
        runner.run(aio.close())


def task_queue(settings: Settings) -> str:
    return Names(settings.namespace).task_queue("default")


def recorded(settings: Settings, status: TaskStatus) -> TaskStatus:
    """What the store says of a task, whatever clients have heard."""
    store = Store(settings.resolved_store_url)
    try:
        return store.read(status.id, status.app) or status
    finally:
        store.close()


NO_APPLICATION: Any = object()


def test_a_sent_task_waits_in_its_queue_as_the_wire_format_says(settings: Settings, client: Client) -> None:
    """The message has the documented headers and body, is persistent, and its id is the status's."""
    status = client.send("a_package.tasks.add", "acme", 1, second="två")
    assert (status.status, status.app, status.task_name) == (Status.PENDING, "acme", "a_package.tasks.add")
    with channel_to(settings.broker_url) as channel:
        _, properties, body = channel.basic_get(task_queue(settings), auto_ack=True)
    assert (properties.delivery_mode, properties.content_type) == (2, "application/msgpack")
    assert properties.message_id not in (None, status.id)
    assert Names(settings.namespace).is_reply_key(properties.reply_to)
    properties.headers.pop("x-delivery-count", None)  # from brokers before RabbitMQ 4
    assert properties.headers == {
        "limetask": 1,
        "task_id": status.id,
        "task": "a_package.tasks.add",
        "app": "acme",
        "attempt": 1,
    }
    assert msgpack.unpackb(body) == {"args": [1], "kwargs": {"second": "två"}}


def test_many_are_sent_in_order(settings: Settings, client: Client) -> None:
    """The statuses are in the order of the calls, and every message is in the queue, in the same order."""
    statuses = client.send_many([TaskCall("a.task", "acme", (number,)) for number in range(1500)])
    assert len({status.id for status in statuses}) == 1500
    letters = take_all(settings.broker_url, task_queue(settings), 1500)
    assert [letter.headers["task_id"] for letter in letters] == [status.id for status in statuses]


def test_nothing_is_sent_if_one_of_many_is_wrong(settings: Settings, client: Client) -> None:
    """All calls are checked before the first is sent."""
    client.send("a.task", "acme")
    with pytest.raises(ArgumentsError, match="argument 1 is"):
        client.send_many([TaskCall("a.task", "acme"), TaskCall("a.task", "acme", (object(),))])
    assert queue_length(settings.broker_url, task_queue(settings)) == 1


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda client: client.send("", "acme"), TaskNameError, "needs a name"),
        (lambda client: client.send("a.task", NO_APPLICATION), ApplicationError, "identifier"),
        (lambda client: client.send("a.task", "acme", 2**64), ArgumentsError, "64 bits"),
        (lambda client: client.send("a.task", "acme", "x" * 2_000_000), MessageTooLargeError, "1,048,576 bytes"),
        (lambda client: client.publish_event("acme", "core.task.x", None), EventError, "Choose another first word"),
        (lambda client: client.publish_event("acme", "shop.paid", object()), EventError, "cannot be published"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_any_connection(
    client: Client, call: Callable[[Client], object], error: type[Exception], says: str
) -> None:
    """Bad input is told without a broker: nothing listens at the broker's address here."""
    configure(Settings(broker_url="amqp://127.0.0.1:1/"))
    with pytest.raises(error, match=says):
        call(client)


def test_a_wrong_url_is_told_at_once(client: Client) -> None:
    """A URL that is no AMQP URL is refused with an example of a right one."""
    configure(Settings(broker_url="http://localhost:15672"))
    with pytest.raises(BrokerUrlError, match="amqp://user:password@host:5672/vhost"):
        client.send("a.task", "acme")


def test_an_absent_broker_is_an_error_within_the_deadline(client: Client) -> None:
    """Nothing listens: the error says where it looked and what to do, soon after the deadline."""
    configure(Settings(broker_url="amqp://guest:secret@127.0.0.1:1/", send_timeout=1.0))
    started = time.monotonic()
    with pytest.raises(BrokerUnreachableError, match=r"no RabbitMQ at 127\.0\.0\.1:1 .*LIMETASK_BROKER_URL") as caught:
        client.send("a.task", "acme")
    assert time.monotonic() - started < 20
    assert "secret" not in str(caught.value)


def test_a_silent_broker_is_an_error_within_the_deadline(client: Client) -> None:
    """Something that accepts connections and says nothing is no reason to hang."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"amqp://guest:guest@127.0.0.1:{silent.getsockname()[1]}/"
        configure(Settings(broker_url=url, send_timeout=1.0))
        started = time.monotonic()
        with pytest.raises(BrokerError):
            client.send("a.task", "acme")
        assert time.monotonic() - started < 20


def test_wrong_credentials_are_told_without_the_password(settings: Settings, client: Client) -> None:
    """The broker's refusal names the user, says what to check, and comes before the deadline."""
    host = settings.broker_url.partition("@")[2]
    configure(replace(settings, broker_url=f"amqp://guest:sesame@{host}"))
    with pytest.raises(BrokerRefusedError, match="refused user 'guest'") as caught:
        client.send("a.task", "acme")
    assert "sesame" not in str(caught.value)


def test_a_wrong_virtual_host_is_told(settings: Settings, client: Client) -> None:
    """The broker's refusal names the virtual host."""
    configure(replace(settings, broker_url=f"{settings.broker_url.rstrip('/')}/nowhere"))
    with pytest.raises(BrokerRefusedError, match="refused virtual host 'nowhere'"):
        client.send("a.task", "acme")


def test_tls_where_there_is_none_is_told(settings: Settings, client: Client) -> None:
    """amqps:// at a port without TLS says so."""
    configure(replace(settings, broker_url=settings.broker_url.replace("amqp://", "amqps://"), send_timeout=5.0))
    with pytest.raises(BrokerUnreachableError, match="speaks no TLS"):
        client.send("a.task", "acme")


def test_what_has_no_queue_is_not_taken_for_sent(settings: Settings, client: Client) -> None:
    """A task whose queue is not bound any more comes back, and the send says so."""
    client.send("a.task", "acme")
    queue = task_queue(settings)
    with channel_to(settings.broker_url) as channel:
        channel.queue_unbind(queue, Names(settings.namespace).tasks_exchange, queue)
    with pytest.raises(UnroutableError, match="no queue"):
        client.send("a.task", "acme")


def test_what_differs_is_told(settings: Settings, client: Client) -> None:
    """An exchange or a queue of another kind under our name is told with what differs and what to do."""
    names = Names(settings.namespace)
    with channel_to(settings.broker_url) as channel:
        channel.exchange_declare(names.events_exchange, "direct", durable=True)
    with pytest.raises(BrokerRefusedError, match="inequivalent arg 'type'") as caught:
        client.publish_event("acme", "shop.paid", None)
    assert "its type is not limetask's: there it is direct, limetask has topic" in str(caught.value)
    with channel_to(settings.broker_url) as channel:
        channel.exchange_delete(names.events_exchange)
        channel.queue_declare(names.task_queue("default"), durable=True)
    with pytest.raises(
        BrokerRefusedError, match=r"its x-\S+ is not limetask's: there it is not set.*rabbitmqctl delete_queue"
    ):
        client.send("a.task", "acme")


@contextmanager
def cut_before_confirm(settings: Settings, client: Client) -> Iterator[Proxy]:
    """Have the connection cut when the broker has what is sent next, and before it says so."""
    declare_namespace(settings.broker_url, settings.namespace)
    with proxy_to(settings.broker_url) as (proxy, url):
        configure(replace(settings, broker_url=url))
        client.send("a.task", "acme", "first")
        cutting = threading.Thread(target=proxy.cut_before_answer)
        proxy.stall("client")
        cutting.start()
        yield proxy
        cutting.join()


def test_a_lost_confirm_is_sent_again_with_the_same_id(settings: Settings, client: Client) -> None:
    """What the broker may have, and has not confirmed, is sent again and flagged."""
    with cut_before_confirm(settings, client):
        status = client.send("a.task", "acme", "second")
    _, *second = take_all(settings.broker_url, task_queue(settings), 3)
    assert {letter.headers["task_id"] for letter in second} == {status.id}
    assert [letter.headers.get("repeated") for letter in second] == [None, True]


def test_many_are_sent_though_their_confirms_are_lost(settings: Settings, client: Client) -> None:
    """The connection is cut in the midst of many: each task is in the queue, and what may be there twice is flagged."""
    with cut_before_confirm(settings, client) as proxy:
        statuses = client.send_many([TaskCall("a.task", "acme", (number,)) for number in range(2500)])
        assert proxy.connections > 1
    queue = task_queue(settings)
    _, *letters = take_all(settings.broker_url, queue, queue_length(settings.broker_url, queue))
    assert {letter.headers["task_id"] for letter in letters} == {status.id for status in statuses}
    unflagged = [letter.headers["task_id"] for letter in letters if "repeated" not in letter.headers]
    assert len(unflagged) == len(set(unflagged))


def test_the_client_comes_back_after_the_broker_was_away(settings: Settings, client: Client) -> None:
    """A process that has sent before sends again once the broker is back."""
    with proxy_to(settings.broker_url) as (proxy, url):
        configure(replace(settings, broker_url=url, send_timeout=5.0))
        client.send("a.task", "acme")
        proxy.refuse()
        with pytest.raises(limetask.LimetaskError):
            client.send("a.task", "acme")
        proxy.refuse(False)
        configure(replace(settings, broker_url=url))
        client.send("a.task", "acme")


def test_a_status_belongs_to_its_application(settings: Settings, client: Client) -> None:
    """A pending task is found by its application, and no id by another's, or if it is none."""
    status = client.send("a.task", "acme")
    assert client.status(status.id, "acme").status is Status.PENDING
    for task_id, app in ((status.id, "other"), ("nonsense", "acme")):
        with pytest.raises(NotFoundError, match="has no task"):
            client.status(task_id, app)


def test_waiting_ends_at_its_timeout(settings: Settings, client: Client) -> None:
    """Without a worker, wait raises TimeoutError when its time is over, and says in which state the task is."""
    status = client.send("a.task", "acme")
    with pytest.raises(WaitTimeoutError, match=r"is PENDING after 0\.2 s"):
        client.wait(status, 0.2)


def test_waiting_for_all_ends_at_its_timeout(settings: Settings, client: Client) -> None:
    """The error tells of how many, and has the newest status of each in the order in which they were given."""
    statuses = client.send_many([TaskCall("a.task", "acme"), TaskCall("a.task", "acme")])
    with pytest.raises(
        WaitTimeoutError, match=r"^2 of 2 tasks have not ended after 0\.2 s .*which is PENDING"
    ) as caught:
        client.wait_all(statuses, 0.2)
    assert [status.id for status in caught.value.statuses] == [status.id for status in statuses]
    assert client.wait_all([], 0) == []


@pytest.mark.parametrize("timeout", [None, "5", float("nan"), True, object()])
def test_a_timeout_is_a_number(settings: Settings, client: Client, timeout: Any) -> None:
    """Anything else is told, and what to say instead of None."""
    status = TaskStatus(ids.new_task_id("acme"), Status.PENDING, app="acme", _reader=STATUS_READER)
    waits: list[tuple[Any, Any]] = [(client.wait, status), (client.wait_all, [status]), (client.wait_all, [])]
    for wait, what in waits:
        with pytest.raises(UsageError, match=r"number of seconds such as 30, and not .* say float\('inf'\)"):
            wait(what, timeout)


@pytest.mark.parametrize("statuses", [None, "text", 7, ["an id"], [None]])
def test_only_statuses_are_waited_for(settings: Settings, client: Client, statuses: Any) -> None:
    """Anything else is told, and what makes one."""
    with pytest.raises(UsageError, match=r"(wait_all takes|only statuses are waited for).* send_task"):
        client.wait_all(statuses, 1)


def test_waiting_with_a_wrong_url_is_told(settings: Settings, client: Client) -> None:
    """Whoever waits would hear nothing of an end: the URL is told as it is by a send."""
    configure(replace(settings, broker_url="http://localhost:15672"))
    status = TaskStatus(ids.new_task_id("acme"), Status.PENDING, app="acme", _reader=STATUS_READER)
    with pytest.raises(BrokerUrlError, match="amqp://user:password@host:5672/vhost"):
        client.wait(status, 30)


def test_an_id_is_taken_in_every_form(settings: Settings, client: Client) -> None:
    """As a UUID object, in upper case, with spaces around it, and without its dashes."""
    status = client.send("a.task", "acme")
    for form in (uuid.UUID(status.id), status.id.upper(), f" {status.id}\n", status.id.replace("-", "")):
        assert client.status(form, "acme").id == status.id


@pytest.mark.parametrize("task_id", [None, 7, b"nonsense", ["nonsense"]])
def test_what_is_no_id_is_not_found(settings: Settings, client: Client, task_id: Any) -> None:
    """The error says that an id is text."""
    with pytest.raises(NotFoundError, match=f"an id is text, not {type(task_id).__name__}"):
        client.status(task_id, "acme")


@pytest.mark.parametrize(
    ("calls", "error", "says"),
    [
        ([("a.task", "acme", (1,))], UsageError, r"\('a.task', 'acme', \(1,\)\) is not a call"),
        (["a.task"], UsageError, "'a.task' is not a call"),
        ([None], UsageError, "None is not a call"),
        ("a.task", UsageError, "takes a list of calls, and not 'a.task'"),
        (None, UsageError, "takes a list of calls, and not None"),
        (TaskCall("a.task", "acme"), UsageError, "takes a list of calls, and not TaskCall"),
        ({"a.task": "acme"}, UsageError, "takes a list of calls"),
        ([TaskCall("a.task", "acme", "text")], ArgumentsError, "args are a list or a tuple, not 'text'"),
        ([TaskCall("a.task", "acme", 7)], ArgumentsError, "args are a list or a tuple, not 7"),  # type: ignore[arg-type]
        ([TaskCall("a.task", "acme", (), [1])], ArgumentsError, r"kwargs are a dict, not \[1\]"),  # type: ignore[arg-type]
    ],
)
def test_calls_of_many_tasks_have_one_form(client: Client, calls: Any, error: type[Exception], says: str) -> None:
    """What is no call is told before any connection, with the form of one."""
    configure(Settings(broker_url="amqp://127.0.0.1:1/"))
    with pytest.raises(error, match=rf"{says}.* A call is `TaskCall\(task, app"):
        client.send_many(calls)


def test_a_user_event_arrives(settings: Settings, client: Client) -> None:
    """The event has the id that was returned, its application, body and key."""
    with subscriber(settings.broker_url, settings.namespace, "shop.#") as events:
        event_id = client.publish_event("acme", "shop.order.paid.v1", {"order": 7})
        [event] = events.wait_for(1)
    assert (event["id"], event["app"], event["body"]) == (event_id, "acme", {"order": 7})
    assert events.letters[0].routing_key == "shop.order.paid.v1"


def test_a_task_lives(settings: Settings, client: Client, start_worker: Callable[..., Worker]) -> None:
    """Sent, run, waited for and looked up: with its result, or with its failure's message."""
    start_worker(settings, "shop", "--processes", "1")
    added = client.send("shop.tasks.add", "acme", 1, 2)
    failed = client.send("shop.tasks.fail", "acme", "no stock")
    ended = client.wait(added, 30)
    assert (ended.status, ended.result, ended.task_name) == (Status.SUCCESS, 3, "shop.tasks.add")
    assert client.wait(failed, 30).result == "no stock"
    assert client.wait(client.status(failed.id, "acme"), 30).status is Status.FAILURE
    assert client.status(added.id, "acme").result == 3


def test_many_tasks_are_waited_for(
    settings: Settings, client: Client, start_worker: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All together and in their order; and those that have ended long ago without a pause before the first look."""
    start_worker(settings, "shop", "--processes", "1")
    calls = [TaskCall("shop.tasks.add", "acme", (number, 1)) for number in range(50)]
    sent = [*client.send_many(calls), client.send("shop.tasks.fail", "acme", "no stock")]
    ended = client.wait_all(sent, 60)
    assert [status.id for status in ended] == [status.id for status in sent]
    assert [status.result for status in ended] == [*range(1, 51), "no stock"]
    assert client.wait_all(reversed(ended), 0) == ended[::-1]  # type: ignore[arg-type]

    eventually(lambda: all(recorded(settings, status).is_completed() for status in sent))
    for module in ("limetask.client", "limetask.aio.client"):
        monkeypatch.setattr(f"{module}.FIRST_POLL_SECONDS", 3600.0)
    monkeypatch.setattr("limetask.reading._JUST_SENT", timedelta(0))
    client.forget()
    assert [status.id for status in client.wait_all(sent, 3600)] == [status.id for status in sent]
    client.forget()
    assert client.wait(sent[0], 3600).result == 1


def test_tasks_go_by_tls(settings: Settings, client: Client, tmp_path: Path) -> None:
    """With a broker whose certificate an authority made that the settings name, and a large message."""
    authority = Authority(tmp_path, "authority")
    with tls_proxy(settings.broker_url, authority.server("localhost")) as port:
        over_tls(settings, port, broker_ca=authority.path)
        client.send("a.task", "acme", "x" * 500_000)
        configure(settings)
        client.send("a.task", "acme")  # on another connection, so that the first is closed before its proxy
    assert queue_length(settings.broker_url, task_queue(settings)) == 2


@pytest.mark.parametrize(
    ("trusted", "name", "says"),
    [("stranger", "localhost", "cannot be trusted"), ("authority", "other.example", "name")],
)
def test_a_broker_that_cannot_be_trusted_is_refused(
    settings: Settings, client: Client, tmp_path: Path, trusted: str, name: str, says: str
) -> None:
    """A certificate of another authority, or for another host, is an error that says so."""
    authorities = {one: Authority(tmp_path, one) for one in ("authority", "stranger")}
    with tls_proxy(settings.broker_url, authorities["authority"].server(name)) as port:
        over_tls(settings, port, broker_ca=authorities[trusted].path)
        with pytest.raises(BrokerRefusedError, match=says):
            client.send("a.task", "acme")


def test_a_broker_that_wants_a_certificate_says_so(settings: Settings, client: Client, tmp_path: Path) -> None:
    """A client without a certificate is told which settings give it one, and one with it gets through."""
    authority = Authority(tmp_path, "authority")
    server = authority.server("localhost")
    authority.vouch_for_clients_of(server)
    with tls_proxy(settings.broker_url, server) as port:
        over_tls(settings, port, broker_ca=authority.path, send_timeout=5.0)
        with pytest.raises(BrokerError, match="client's certificate"):
            client.send("a.task", "acme")
        over_tls(settings, port, broker_ca=authority.path, **authority.client())
        client.send("a.task", "acme")
        configure(settings)
        client.send("a.task", "acme")
