"""The AMQP core against a real broker, with faults in between."""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import uvloop

from limetask import (
    BrokerRefusedError,
    BrokerUnreachableError,
    ConnectionLostError,
    Settings,
    UnroutableError,
)
from limetask.amqp import Connection, Delivery, ReplyQueue, Subscription, session
from limetask.amqp.pika_connection import PikaConnection
from limetask.amqp.session import open_pika_connection
from limetask.amqp.url import connection_parameters
from limetask.message import Envelope
from limetask.topology import Names
from tests.broker import channel_to, queue_length, take_all
from tests.proxy import Proxy, proxy_to
from tests.waiting import eventually


def message(text: str = "hello") -> Envelope:
    return Envelope(text.encode(), "text/plain", message_id=text)


def with_connection(settings: Settings, use: Callable[[Connection], Awaitable[None]]) -> None:
    """Run `use` with an open connection, and close it."""

    async def main() -> None:
        connection = Connection(settings, "test")
        try:
            await connection.ready(10)
            await use(connection)
        finally:
            await connection.close()

    asyncio.run(asyncio.wait_for(main(), 60))


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def test_a_confirmed_message_is_in_its_queue(settings: Settings) -> None:
    """What was confirmed is there, with the properties it was given, persistent."""
    names = Names(settings.namespace)

    async def use(connection: Connection) -> None:
        await connection.publish(names.tasks_exchange, names.task_queue("asap"), message())

    with_connection(settings, use)
    assert [letter.body for letter in take_all(settings.broker_url, names.task_queue("asap"), 1)] == [b"hello"]


def test_an_unroutable_message_fails_and_others_do_not(settings: Settings) -> None:
    """The broker's return is matched with the publish that it belongs to, among many in flight."""
    names = Names(settings.namespace)

    async def use(connection: Connection) -> None:
        publishes = [
            connection.publish(
                names.tasks_exchange,
                "nowhere" if number % 3 == 0 else names.task_queue("default"),
                message(str(number)),
            )
            for number in range(30)
        ]
        outcomes = await asyncio.gather(*publishes, return_exceptions=True)
        assert [isinstance(outcome, UnroutableError) for outcome in outcomes] == [
            number % 3 == 0 for number in range(30)
        ]

    with_connection(settings, use)


def test_consumers_come_back_after_a_cut_connection(settings: Settings) -> None:
    """After a cut, topology, prefetch and consumers are rebuilt; stale acks are dropped, and nothing is lost."""
    names = Names(settings.namespace)
    queue = names.task_queue("default")
    deliveries: list[Delivery] = []

    def use_with(proxy: Proxy) -> Callable[[Connection], Awaitable[None]]:
        async def use(connection: Connection) -> None:
            await connection.consume(Subscription(queue, 10, deliveries.append))
            await connection.publish(names.tasks_exchange, queue, message("first"))
            await until(lambda: deliveries)
            proxy.cut()
            await until(lambda: len(deliveries) == 2)
            stale, fresh = deliveries
            assert (stale.redelivered, fresh.redelivered) == (False, True)
            assert not connection.holds(stale)
            assert connection.holds(fresh)
            connection.ack(stale)  # dropped: acking an old tag on a new channel would close it
            connection.ack(fresh)
            await connection.publish_until_confirmed(names.tasks_exchange, queue, message("second"))
            await until(lambda: len(deliveries) == 3)
            connection.ack(deliveries[2])

        return use

    with proxy_to(settings.broker_url) as (proxy, url):
        with_connection(replace(settings, broker_url=url), use_with(proxy))
    eventually(lambda: queue_length(settings.broker_url, queue) == 0)


def test_a_consumer_whose_connection_is_cut_while_it_begins_comes_back(settings: Settings) -> None:
    """The cut is nothing that whoever consumes must see to."""
    names = Names(settings.namespace)
    queue = names.task_queue("default")
    deliveries: list[Delivery] = []

    def use_with(proxy: Proxy) -> Callable[[Connection], Awaitable[None]]:
        async def use(connection: Connection) -> None:
            proxy.stall("client")
            beginning = asyncio.ensure_future(connection.consume(Subscription(queue, 10, deliveries.append)))
            await until(lambda: proxy.holds_an_answer)
            proxy.cut()
            proxy.flow()
            await beginning
            await connection.publish_until_confirmed(names.tasks_exchange, queue, message())
            await until(lambda: deliveries)
            connection.ack(deliveries[0])

        return use

    with proxy_to(settings.broker_url) as (proxy, url):
        with_connection(replace(settings, broker_url=url), use_with(proxy))


def test_a_publish_that_was_not_confirmed_is_unknown(settings: Settings) -> None:
    """A cut before the confirm fails the publish with ConnectionLostError instead of leaving it hanging."""
    names = Names(settings.namespace)

    def use_with(proxy: Proxy) -> Callable[[Connection], Awaitable[None]]:
        async def use(connection: Connection) -> None:
            proxy.refuse()
            with pytest.raises(ConnectionLostError):
                await connection.publish(names.tasks_exchange, names.task_queue("default"), message())

        return use

    with proxy_to(settings.broker_url) as (proxy, url):
        with_connection(replace(settings, broker_url=url), use_with(proxy))


def test_publishing_until_confirmed_outlives_an_absent_broker(settings: Settings) -> None:
    """What must not be lost is kept while the broker is away, and published when it is back."""
    names = Names(settings.namespace)

    def use_with(proxy: Proxy) -> Callable[[Connection], Awaitable[None]]:
        async def use(connection: Connection) -> None:
            proxy.refuse()
            await until(lambda: not connection.is_ready)
            kept = asyncio.ensure_future(
                connection.publish_until_confirmed(names.tasks_exchange, names.task_queue("default"), message("kept"))
            )
            with pytest.raises(BrokerUnreachableError):
                await connection.ready(0.5)
            assert not kept.done()
            proxy.refuse(False)
            await kept

        return use

    with proxy_to(settings.broker_url) as (proxy, url):
        with_connection(replace(settings, broker_url=url), use_with(proxy))
    assert take_all(settings.broker_url, names.task_queue("default"), 1)[0].body == b"kept"


def test_what_has_no_queue_gets_it_back(settings: Settings) -> None:
    """A queue or binding that somebody has deleted is declared anew, and what must not be lost arrives there."""
    names = Names(settings.namespace)

    async def use(connection: Connection) -> None:
        with channel_to(settings.broker_url) as channel:
            for key in ("", "again"):
                channel.queue_unbind(names.results_queue, names.completions_exchange, key)
            channel.queue_delete(names.task_queue("asap"))
        key = "core.task.a.b.success.v1"
        await connection.publish_until_confirmed(names.completions_exchange, key, message("event"))
        await connection.publish_until_confirmed(names.tasks_exchange, names.task_queue("asap"), message("task"))

    with_connection(settings, use)
    assert take_all(settings.broker_url, names.results_queue, 1)[0].body == b"event"
    assert take_all(settings.broker_url, names.task_queue("asap"), 1)[0].body == b"task"


def test_a_cancelled_consumer_consumes_again(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """When the broker cancels a consumer, as for a deleted queue, that is told, and all is declared anew."""
    names = Names(settings.namespace)
    queue = names.task_queue("background")
    deliveries: list[Delivery] = []

    async def use(connection: Connection) -> None:
        await connection.consume(Subscription(queue, 10, deliveries.append))
        with channel_to(settings.broker_url) as channel:
            channel.queue_delete(queue)
        await until(lambda: not connection.is_ready)
        await connection.publish_until_confirmed(names.tasks_exchange, queue, message())
        await until(lambda: deliveries)
        connection.ack(deliveries[0])

    with_connection(settings, use)
    assert f"the broker cancelled the consumer of {queue}: the queue was deleted" in caplog.text


def test_a_reply_queue_gets_copies_under_its_key(settings: Settings) -> None:
    """One publish reaches both the subscribers of its key and the reply queue, which see the same message."""
    names = Names(settings.namespace)
    key = names.reply_key("abc")
    replies: list[Delivery] = []

    async def main() -> None:
        publisher, listener = Connection(settings, "publisher"), Connection(settings, "listener")
        listener.set_reply_queue(ReplyQueue(names.events_exchange, key, 100, replies.append))
        await listener.ready(10)
        await publisher.ready(10)
        await publisher.publish(names.completions_exchange, "core.task.a.b.success.v1", message(), copy_to=key)
        await until(lambda: replies)
        await publisher.close()
        await listener.close()

    asyncio.run(main())
    [recorded] = take_all(settings.broker_url, names.results_queue, 1)
    assert recorded.body == replies[0].envelope.body
    assert recorded.routing_key == "core.task.a.b.success.v1"
    assert "BCC" not in recorded.headers


@pytest.mark.parametrize(
    ("replaced", "error", "says"),
    [
        ({"userinfo": "guest:wrong"}, BrokerRefusedError, "refused user 'guest'"),
        ({"path": "/nowhere"}, BrokerRefusedError, "virtual host 'nowhere'"),
    ],
)
def test_a_refusal_is_told_at_once_and_says_what_is_wrong(
    settings: Settings, replaced: dict[str, str], error: type[Exception], says: str
) -> None:
    """Wrong credentials or virtual host end the wait for the connection, long before its deadline."""
    host = settings.broker_url.partition("@")[2].partition("/")[0]
    url = f"amqp://{replaced.get('userinfo', 'guest:guest')}@{host}{replaced.get('path', '/')}"

    async def main() -> None:
        connection = Connection(replace(settings, broker_url=url), "test")
        try:
            async with asyncio.timeout(10):
                await connection.ready(60)
        finally:
            await connection.close()

    with pytest.raises(error, match=says) as caught:
        asyncio.run(main())
    assert "wrong" not in str(caught.value)
    assert "LIMETASK_BROKER_URL" in str(caught.value)


def test_a_silent_port_is_unreachable_within_the_deadline(settings: Settings) -> None:
    """Something that accepts connections and says nothing does not hold the caller longer than its deadline."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"amqp://guest:guest@127.0.0.1:{silent.getsockname()[1]}/"

        async def main() -> None:
            connection = Connection(replace(settings, broker_url=url, connect_timeout=0.5), "test")
            try:
                async with asyncio.timeout(10):
                    await connection.ready(1.5)
            finally:
                await connection.close()

        with pytest.raises(BrokerUnreachableError, match="start it, or set LIMETASK_BROKER_URL"):
            asyncio.run(main())


def test_what_speaks_no_amqp_is_told_apart(settings: Settings) -> None:
    """An HTTP server at the broker's address is named as what it is not."""

    async def main() -> None:
        async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        connection = Connection(replace(settings, broker_url=f"amqp://guest:guest@127.0.0.1:{port}/"), "test")
        try:
            await connection.ready(2)
        finally:
            await connection.close()
            server.close()

    with pytest.raises(BrokerUnreachableError, match="AMQP"):
        asyncio.run(main())


def test_an_error_that_nobody_foresaw_is_told_and_tried_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What pika has never raised so far does not end the attempts to connect: who waits is told, and served later."""

    async def main() -> None:
        connection = Connection(settings, "test")
        try:
            with monkeypatch.context() as patch:
                patch.setattr(session.Session, "open_channel", raise_unforeseen)
                waiting = asyncio.ensure_future(connection.ready(60))
                await until(lambda: "please report this" in caplog.text)
                with pytest.raises(ConnectionLostError, match="ZeroDivisionError"):
                    await connection.ready(0.5)
            await waiting
        finally:
            await connection.close()

    asyncio.run(main())
    assert "please report this" in caplog.text
    assert "Traceback" in caplog.text


async def raise_unforeseen(_session: Any) -> None:
    raise ZeroDivisionError


def test_a_differing_queue_is_a_refusal_that_names_it(settings: Settings) -> None:
    """A queue that exists with other arguments stops us with the broker's own explanation."""
    queue = Names(settings.namespace).task_queue("asap")
    with channel_to(settings.broker_url) as channel:
        channel.queue_declare(queue, durable=True)

    async def use(connection: Connection) -> None:
        raise AssertionError("it must not connect")

    with pytest.raises(BrokerRefusedError, match=queue):
        with_connection(settings, use)


def test_an_attempt_to_connect_ends_though_pika_says_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should pika miss its own deadline, the attempt has one more."""
    monkeypatch.setattr(PikaConnection, "create_connection", lambda *_, **__: None)
    monkeypatch.setattr(session, "_CLOSE_SECONDS", 0.1)
    parameters = connection_parameters(replace(settings, connect_timeout=0.1), "test")
    with pytest.raises(BrokerUnreachableError, match="handshake in time"):
        asyncio.run(asyncio.wait_for(open_pika_connection(parameters), 10))


@contextmanager
def hanging_up() -> Iterator[int]:
    """Give the port of a server that resets each connection, a little later each time: as a broker that is killed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def reset_for_ever() -> None:
            for turn in itertools.count():
                try:
                    near, _ = listener.accept()
                except OSError:
                    return
                near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                time.sleep(turn % 10 * 0.00005)
                near.close()

        thread = threading.Thread(target=reset_for_ever)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_broker_that_dies_in_the_handshake_is_unreachable(settings: Settings, run: Callable[..., Any]) -> None:
    """At whatever moment the connection is reset, the attempt to connect ends, and says so at once."""
    attempts = 200

    async def main(port: int) -> int:
        unreachable = 0
        own = replace(settings, broker_url=f"amqp://guest:guest@127.0.0.1:{port}/", connect_timeout=20.0)
        for _ in range(attempts):
            try:
                async with asyncio.timeout(10):
                    await open_pika_connection(connection_parameters(own, "test"))
            except BrokerUnreachableError:
                unreachable += 1
        return unreachable

    with hanging_up() as port:
        assert run(main(port)) == attempts


def test_a_renewed_connection_has_its_reply_queue_and_consumers_again(settings: Settings, namespace: str) -> None:
    """Whoever suspects that the broker has lost them connects again; what is not confirmed by then is unknown."""
    names = Names(settings.namespace)
    replies: list[Delivery] = []
    taken: list[Delivery] = []

    async def main() -> None:
        connection = Connection(settings, "test")
        connection.set_reply_queue(ReplyQueue(names.events_exchange, names.reply_key("a"), 10, replies.append))
        await connection.ready(10)
        await connection.consume(Subscription(names.task_queue("asap"), 10, taken.append))
        unconfirmed = connection.publish(names.events_exchange, names.reply_key("a"), message())
        connection.renew("a test")
        with pytest.raises(ConnectionLostError):
            await unconfirmed
        await connection.publish_until_confirmed(names.events_exchange, names.reply_key("a"), message("again"))
        await connection.publish_until_confirmed(names.tasks_exchange, names.task_queue("asap"), message("task"))
        await until(lambda: taken and replies)
        assert (replies[-1].envelope.body, taken[-1].envelope.body) == (b"again", b"task")
        await connection.close()
        connection.renew("it is closed")

    asyncio.run(asyncio.wait_for(main(), 60))
