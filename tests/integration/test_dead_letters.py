"""Dead letters in a real broker: looked at, retried and purged, also when that is interrupted."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgpack
import pika
import pytest

from limetask import (
    BrokerError,
    BrokerUnreachableError,
    ErrorInfo,
    NotConfirmedError,
    NotFoundError,
    Settings,
    configure,
    ids,
)
from limetask.amqp import Connection, Delivery
from limetask.codec import decode_identity, encode_dead_letter, encode_task
from limetask.dead_letters import ALL, DeadLetter, DeadLetterFilter, list_dead_letters, purge, retry, show
from limetask.dead_letters.queue import DeadQueue
from limetask.delays import routing_key
from limetask.errors import ConnectionLostError
from limetask.message import (
    RECORD_KINDS,
    Alive,
    Claim,
    Echo,
    Envelope,
    HandlerBindings,
    HandlerGone,
    MessageKind,
    Refused,
    Released,
    Returned,
    TaskIdentity,
    WorkerLost,
)
from limetask.records import (
    encode_alive,
    encode_claim,
    encode_completion,
    encode_echo,
    encode_handler_gone,
    encode_handlers,
    encode_refused,
    encode_released,
    encode_returned,
    encode_started,
    encode_worker_lost,
)
from limetask.signing import Signer
from limetask.topology import Names, delay_topology, handler_topology
from tests.broker import channel_to, declare_namespace, queue_length, take_all
from tests.proxy import proxy_to
from tests.unit.messages import FAILURE, STARTED
from tests.waiting import eventually
from tests.worker import environment_of

BODY = msgpack.packb({"args": [1, 2], "kwargs": {"three": 3}})
LONG_AGO = datetime.now(UTC) - timedelta(days=3)


@pytest.fixture(autouse=True)
def _declared(settings: Settings) -> None:
    declare_namespace(settings.broker_url, settings.namespace)


def task_message(app: str = "acme", task: str = "shop.tasks.add", attempt: int = 1) -> Envelope:
    return encode_task(TaskIdentity(ids.new_task_id(app), task, app, attempt, None), BODY)


def properties_of(envelope: Envelope) -> pika.BasicProperties:
    return pika.BasicProperties(
        headers=dict(envelope.headers or {}),
        content_type=envelope.content_type,
        message_id=envelope.message_id,
        type=envelope.kind,
        delivery_mode=2,
    )


def set_aside(
    settings: Settings,
    messages: Sequence[Envelope],
    reason: str = "unknown task",
    queue: str = "default",
    died_at: datetime | None = None,
) -> None:
    """Put messages into the queue of dead letters, as a worker does."""
    names = Names(settings.namespace)
    before = dead_count(settings)
    with channel_to(settings.broker_url) as channel:
        for message in messages:
            from_queue = names.results_queue if queue == "results" else names.task_queue(queue)
            letter = encode_dead_letter(message, from_queue, reason, died_at or datetime.now(UTC))
            channel.basic_publish(names.dead_exchange, "", letter.body, properties_of(letter))
    are_back(settings, before + len(messages))


def reject(settings: Settings, messages: Sequence[Envelope], queue: str) -> None:
    """Have the broker dead-letter messages: publish them to a queue, and reject them there."""
    with channel_to(settings.broker_url) as channel:
        for message in messages:
            channel.basic_publish("", queue, message.body, properties_of(message))
        for number, (method, _, _) in enumerate(channel.consume(queue), start=1):
            channel.basic_nack(method.delivery_tag, requeue=False)
            if number == len(messages):
                break
        channel.cancel()
    eventually(lambda: queue_length(settings.broker_url, Names(settings.namespace).dead_queue) >= len(messages))


def dead_count(settings: Settings) -> int:
    return queue_length(settings.broker_url, Names(settings.namespace).dead_queue)


def are_back(settings: Settings, count: int) -> None:
    """Return when there are so many dead letters in the queue, in nobody's hands."""
    eventually(lambda: dead_count(settings) == count, what=f"{count} dead letters")


def headers_in(settings: Settings, queue: str, count: int) -> list[Mapping[str, Any]]:
    """Take messages off a task queue and return their headers."""
    letters = take_all(settings.broker_url, Names(settings.namespace).task_queue(queue), count)
    return [letter.headers for letter in letters]


def test_a_letter_of_a_worker_tells_all_that_is_known(settings: Settings) -> None:
    """Task, application, attempt, reason, queue, time of death, size and arguments are those of the message."""
    message = task_message(attempt=3)
    set_aside(settings, [message], "unknown application", "asap", LONG_AGO)
    [letter] = list_dead_letters()
    assert letter == DeadLetter(
        id=letter.id,
        kind="task",
        task_id=str((message.headers or {})["task_id"]),
        task_name="shop.tasks.add",
        app="acme",
        attempt=3,
        reason="unknown application",
        error=None,
        queue=Names(settings.namespace).task_queue("asap"),
        first_died_at=LONG_AGO,
        last_died_at=LONG_AGO,
        deaths=1,
        size=len(BODY),
    )
    content = show(letter.id)
    assert (content.letter, content.args, content.kwargs, content.undecodable) == (letter, [1, 2], {"three": 3}, None)
    assert content.headers == message.headers


def test_a_letter_of_the_broker_tells_all_that_is_known(settings: Settings) -> None:
    """What the broker has dead-lettered by itself is told from its `x-death`."""
    message = task_message("umbrella", "shop.tasks.echo")
    queue = Names(settings.namespace).task_queue("background")
    reject(settings, [message], queue)
    [letter] = list_dead_letters()
    assert (letter.kind, letter.task_name, letter.app, letter.attempt) == ("task", "shop.tasks.echo", "umbrella", 1)
    assert (letter.queue, letter.deaths) == (queue, 1)
    assert letter.reason == "rejected: a consumer refused it"
    assert letter.last_died_at is not None
    assert abs(datetime.now(UTC) - letter.last_died_at) < timedelta(seconds=60)
    assert show(letter.id).headers == message.headers  # nothing of the broker's own


def test_looking_changes_nothing(settings: Settings) -> None:
    """Two looks find the same letters under the same ids, in the same order, and all are left in the queue."""
    set_aside(settings, [task_message(app) for app in ("acme", "umbrella", "acme")])
    reject(settings, [task_message("initech") for _ in range(3)], Names(settings.namespace).task_queue("default"))
    are_back(settings, 6)
    first = list_dead_letters()
    show(first[-1].id)
    assert list_dead_letters() == first
    assert len({letter.id for letter in first}) == 6
    are_back(settings, 6)


def test_two_thousand_letters(settings: Settings) -> None:
    """Many letters are listed in order, half of them retried and the rest purged; progress is told on the way."""
    set_aside(settings, [task_message() for _ in range(2000)])
    letters = list_dead_letters()
    assert len({letter.id for letter in letters}) == 2000
    told: list[tuple[int, int]] = []
    outcome = retry((letter.id for letter in letters[::2]), on_progress=lambda *done: told.append(done))
    assert (outcome.count, told[0], told[-1]) == (1000, (1, 2000), (2000, 2000))
    assert list_dead_letters() == letters[1::2]
    sent = headers_in(settings, "default", 1000)
    assert {headers["task_id"] for headers in sent} == {letter.task_id for letter in letters[::2]}
    assert purge(ALL).count == 1000
    are_back(settings, 0)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (ALL, "abcd"),
        (DeadLetterFilter(task="shop.tasks.add"), "abd"),
        (DeadLetterFilter(task="shop.*"), "abd"),
        (DeadLetterFilter(task="*.e?ho"), "c"),
        (DeadLetterFilter(task="SHOP.*"), ""),
        (DeadLetterFilter(app="acme"), "ac"),
        (DeadLetterFilter(app="acm*"), ""),
        (DeadLetterFilter(reason="UNKNOWN"), "acd"),
        (DeadLetterFilter(older_than=timedelta(days=2)), "d"),
        (DeadLetterFilter(newer_than=timedelta(hours=1)), "abc"),
        (DeadLetterFilter(older_than=timedelta(days=2), newer_than=timedelta(days=4)), "d"),
        (DeadLetterFilter(app="acme", task="shop.*"), "a"),
        (DeadLetterFilter(limit=2), "ab"),
        (DeadLetterFilter(reason="unknown", limit=2), "ac"),
    ],
    ids=str,
)
def test_filters_choose(settings: Settings, wanted: DeadLetterFilter, found: str) -> None:
    """Everything given must apply; the limit takes the first ones."""
    messages = {
        "a": task_message("acme"),
        "b": task_message("umbrella"),
        "c": task_message("acme", "crm.echo"),
        "d": task_message("initech"),
    }
    set_aside(settings, [messages["a"]], "unknown task")
    set_aside(settings, [messages["b"]], "not valid msgpack")
    set_aside(settings, [messages["c"]], "unknown application")
    set_aside(settings, [messages["d"]], "unknown task", died_at=LONG_AGO)
    name_of = {(message.headers or {})["task_id"]: name for name, message in messages.items()}
    assert "".join(name_of[letter.task_id] for letter in list_dead_letters(wanted)) == found
    are_back(settings, 4)
    assert purge(wanted).count == len(found)
    are_back(settings, 4 - len(found))


def test_a_retry_is_a_fresh_message(settings: Settings) -> None:
    """Same task and arguments, next attempt, same queue, flagged; no header of the dead message is copied."""
    queue = Names(settings.namespace).task_queue("background")
    message = task_message()
    strange = replace(message, headers={**(message.headers or {}), "strange": 1, "moved": True})
    reject(settings, [strange], queue)
    [letter] = list_dead_letters()
    assert retry([letter.id]).count == 1
    [sent] = take_all(settings.broker_url, queue, 1)
    assert sent.body == BODY
    assert letter.first_died_at is not None
    assert sent.headers == {
        "limetask": 1,
        "task_id": letter.task_id,
        "task": "shop.tasks.add",
        "app": "acme",
        "attempt": 2,
        "repeated": True,
        "first_died_at": letter.first_died_at.isoformat(),
        "deaths": 1,
    }
    are_back(settings, 0)


def test_a_letter_remembers_the_deaths_before_a_retry(settings: Settings) -> None:
    """A task that dies again after its retry tells its first death, its last and how many there were."""
    set_aside(settings, [task_message()], died_at=LONG_AGO)
    for deaths in (2, 3):
        retry(ALL)
        [sent] = take_all(settings.broker_url, Names(settings.namespace).task_queue("default"), 1)
        set_aside(settings, [Envelope(sent.body, "application/msgpack", headers=sent.headers)])
        [letter] = list_dead_letters()
        assert (letter.attempt, letter.deaths, letter.first_died_at) == (deaths, deaths, LONG_AGO)
        assert letter.last_died_at is not None
        assert letter.last_died_at > LONG_AGO + timedelta(days=1)


def test_a_retry_from_an_unknown_queue_goes_to_the_default_one(settings: Settings) -> None:
    """A queue that is none of ours is not published to."""
    set_aside(settings, [task_message()], queue="of-yesteryear")
    assert retry(ALL).count == 1
    assert len(headers_in(settings, "default", 1)) == 1


def test_records_go_back_to_the_recorder_and_foreign_messages_stay(settings: Settings) -> None:
    """A record is put into the results queue as it was; what limetask has not made is reported and left alone."""
    names = Names(settings.namespace)
    record = Envelope(b"[]", "application/json", "record", kind="started")
    set_aside(settings, [record], queue="results")
    reject(settings, [replace(record, body=b"[ ]")], names.results_queue)
    set_aside(settings, [Envelope(b"hello", "text/plain", "foreign")])
    are_back(settings, 3)
    outcome = retry(ALL)
    assert outcome.count == 2
    [(left, reason)] = outcome.refused
    assert (left.kind, reason) == ("foreign", "it is no task of limetask")
    assert {letter.body for letter in take_all(settings.broker_url, names.results_queue, 2)} == {b"[]", b"[ ]"}
    assert list_dead_letters() == [left]
    assert show(left.id).undecodable is not None


LOST = WorkerLost("host.1.a", "killed by SIGKILL", LONG_AGO, [])
END = replace(FAILURE, error=ErrorInfo("UnknownTaskError", "unknown task"), started_at=None)
RECORDS: dict[MessageKind, Envelope] = {
    MessageKind.STARTED: encode_started([STARTED]),
    MessageKind.COMPLETION: encode_completion(FAILURE),
    MessageKind.REFUSED: encode_refused(Refused(END, False)),
    MessageKind.CLAIM: encode_claim(Claim(STARTED, False, "limetask.reply.abc")),
    MessageKind.RELEASED: encode_released(Released(STARTED.task_id, 2, "host.1.a", LONG_AGO)),
    MessageKind.RETURNED: encode_returned(Returned([(STARTED.task_id, 2)])),
    MessageKind.ECHO: encode_echo(Echo("host.1.r", 8123.5)),
    MessageKind.ALIVE: encode_alive(Alive(LONG_AGO, {"host.1.a": []})),
    MessageKind.WORKER_LOST: encode_worker_lost(LOST),
    MessageKind.HANDLERS: encode_handlers([HandlerBindings("shop.notify", ["shop.#"], LONG_AGO)]),
    MessageKind.HANDLER_GONE: encode_handler_gone(HandlerGone("shop.notify", LONG_AGO)),
}
OUT_OF_DATE = {
    MessageKind.CLAIM,
    MessageKind.RETURNED,
    MessageKind.ECHO,
    MessageKind.ALIVE,
    MessageKind.HANDLERS,
}


@pytest.mark.parametrize("is_the_brokers", [False, True])
def test_records_of_every_kind_are_known(settings: Settings, is_the_brokers: bool) -> None:
    """Each is shown with its kind and its task, and retried unless it would be wrong by now; purged in any case."""
    assert RECORDS.keys() == RECORD_KINDS
    names = Names(settings.namespace)
    if is_the_brokers:
        reject(settings, list(RECORDS.values()), names.results_queue)
    else:
        set_aside(settings, list(RECORDS.values()), queue="results")
    are_back(settings, len(RECORDS))
    letters = {letter.record: letter for letter in list_dead_letters()}
    assert letters.keys() == RECORD_KINDS
    assert {letter.kind for letter in letters.values()} == {"record"}
    about_a_task = {kind for kind, letter in letters.items() if letter.task_id == STARTED.task_id}
    assert about_a_task == {"started", "completion", "refused", "claim", "released"}
    outcome = retry(ALL)
    assert {letter.record for letter, reason in outcome.refused if "purge it" in reason} == OUT_OF_DATE
    again = take_all(settings.broker_url, names.results_queue, len(RECORDS) - len(OUT_OF_DATE))
    assert {letter.body for letter in again} == {
        record.body for kind, record in RECORDS.items() if kind not in OUT_OF_DATE
    }
    assert purge(ALL).count == len(OUT_OF_DATE)


HANDLER = "shop.notify"
FORGED_DEATH = {"queue": "results", "reason": "rejected", "exchange": "", "count": 1, "routing-keys": [""]}


def forgeries(names: Names) -> list[pika.BasicProperties]:
    """Properties as of letters from a worker and from the broker: for the recorder, and for a handler."""
    wanted = [(names.results_queue, "completion"), (names.handler_queue(HANDLER), "event")]
    claims = [{"limetask": 1, "reason": "why", "queue": queue, "kind": kind, "original": {}} for queue, kind in wanted]
    deaths = [[FORGED_DEATH | {"queue": queue}] for queue, _ in wanted]
    told = [(claim, "dead-letter") for claim in claims]
    told += [(claim | {"x-death": death}, "dead-letter") for claim, death in zip(claims, deaths, strict=True)]
    told += [({"x-death": death}, kind) for death, (_, kind) in zip(deaths, wanted, strict=True)]
    return [pika.BasicProperties(headers=headers, type=kind, content_type="application/json") for headers, kind in told]


@pytest.mark.parametrize("way", ["expired", "expired-without-a-key", "unroutable", "delayed"])
def test_a_sender_cannot_have_a_record_or_an_event_retried(settings: Settings, way: str) -> None:
    """Whatever a message claims to be that the broker has set aside: it is foreign, and stays where it is."""
    names = Names(settings.namespace)
    forged = forgeries(names)
    queue = names.task_queue("default")
    wanted = delay_topology(names, 1) + handler_topology(names, HANDLER, ["shop.#"])
    with channel_to(settings.broker_url) as channel:
        for level in wanted.exchanges:
            channel.exchange_declare(level.name, level.kind, durable=True)
        for wanted_queue in wanted.queues:
            channel.queue_declare(wanted_queue.name, durable=True, arguments=dict(wanted_queue.arguments))
        for binding in wanted.bindings:
            channel.queue_bind(binding.queue, binding.exchange, binding.routing_key)
        for between in wanted.exchange_bindings:
            channel.exchange_bind(between.destination, between.exchange, between.routing_key)
        for properties in forged:
            exchange, key = names.tasks_exchange, queue
            if way == "expired-without-a-key":
                key, properties.headers["CC"] = "", [queue]
            if way.startswith("expired"):
                properties.expiration = "0"
            else:
                exchange, key = names.delay(0), routing_key(int(way == "delayed"), "nowhere")
            channel.basic_publish(exchange, key, encode_completion(FAILURE).body, properties, mandatory=True)
    try:
        are_back(settings, len(forged))
        assert {letter.kind for letter in list_dead_letters()} == {"foreign"}
        outcome = retry(ALL)
        assert (outcome.count, len(outcome.refused)) == (0, len(forged))
        for target in (names.results_queue, names.handler_queue(HANDLER), queue):
            assert queue_length(settings.broker_url, target) == 0
        assert purge(ALL).count == len(forged)
    finally:
        with channel_to(settings.broker_url) as channel:
            for wanted_queue in wanted.queues:
                channel.queue_delete(wanted_queue.name)
            for level in wanted.exchanges:
                channel.exchange_delete(level.name)


def test_a_letter_fits_into_the_frames_of_its_connection(settings: Settings) -> None:
    """They may be as short as 4 KiB: what does not fit is cut, and the connection is kept."""
    message = replace(task_message(), headers={**(task_message().headers or {}), "big": "x" * 60_000})
    letter = encode_dead_letter(message, Names(settings.namespace).task_queue("default"), "why", datetime.now(UTC))

    async def publish() -> None:
        connection = Connection(settings, "short frames")
        connection._parameters.frame_max = 4096  # as a broker may demand
        await connection.ready(10)
        async with asyncio.timeout(20):
            await connection.publish_until_confirmed(Names(settings.namespace).dead_exchange, "", letter)
        assert connection.epoch == 1
        await connection.close()

    asyncio.run(publish())
    [found] = list_dead_letters()
    assert found.task_name == "shop.tasks.add"
    assert "(cut, of 60,000 bytes)" in show(found.id).headers["big"]


def test_a_letter_may_hold_anything(settings: Settings) -> None:
    """Headers of every wrong kind are listed, shown and purged like any other, and never retried."""
    strange: list[dict[Any, Any]] = [
        {"limetask": 1, "reason": 5, "queue": [1], "died_at": "yesterday", "kind": 7, "original": "none"},
        {"limetask": 1, "reason": "", "died_at": "0001-01-01T00:00:00+23:00", "original": {"task": 3, "attempt": -1}},
        {"limetask": 1, "original": {"limetask": 1, "deaths": "many", "first_died_at": 3}},
        {"x-death": "no list"},
        {"x-death": [3, {"queue": 1, "time": "soon", "count": True}]},
        {b"\xff\xfe": b"\xff", "x-y": 1, "limetask": 1, "original": {b"\xff": "\x00"}},
        {},
    ]
    names = Names(settings.namespace)
    with channel_to(settings.broker_url) as channel:
        for kind in ("dead-letter", "completion", None):
            for headers in strange:
                channel.basic_publish(
                    names.dead_exchange, "", b"\xff", pika.BasicProperties(headers=headers, type=kind)
                )
    letters = list_dead_letters()
    assert len(letters) == 21
    assert {letter.kind for letter in letters} == {"foreign"}
    for letter in letters:
        assert show(letter.id).undecodable is not None
    assert len(retry(ALL).refused) == 21
    assert purge(ALL).count == 21


def test_ids_that_nobody_has(settings: Settings) -> None:
    """Showing one raises NotFoundError; retry and purge act on the others and name it."""
    set_aside(settings, [task_message()])
    [letter] = list_dead_letters()
    with pytest.raises(NotFoundError, match="no dead letter 'unknown'"):
        show("unknown")
    assert retry("unknown").missing == ("unknown",)
    outcome = purge([letter.id, "unknown"])
    assert (outcome.count, outcome.missing) == (1, ("unknown",))
    assert retry([]).count == 0


def test_letters_of_one_attempt_are_retried_as_one(settings: Settings) -> None:
    """A worker that lost its connection may have set a message aside twice: the task is sent once."""
    message = task_message()
    set_aside(settings, [message, task_message(), message])
    assert retry(ALL).count == 3
    are_back(settings, 0)
    assert queue_length(settings.broker_url, Names(settings.namespace).task_queue("default")) == 2


def test_a_failing_ack_leaves_the_letter_and_a_flag(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted between confirm and ack, and repeated: both messages are the same attempt, flagged as repeated."""
    set_aside(settings, [task_message()])

    def lose_the_connection(connection: Connection, delivery: Delivery, *, multiple: bool = False) -> None:
        raise ConnectionLostError("cut")

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "ack", lose_the_connection)
        with pytest.raises(ConnectionLostError, match="0 dead letters were retried before that: run it again"):
            retry(ALL)
    are_back(settings, 1)
    assert retry(ALL).count == 1
    sent = headers_in(settings, "default", 2)
    assert {(headers["task_id"], headers["attempt"], headers["repeated"]) for headers in sent} == {
        (sent[0]["task_id"], 2, True)
    }


KILLED_BEFORE_THE_ACK = """
import os, signal
from limetask import dead_letters
from limetask.amqp import Connection

Connection.ack = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
dead_letters.retry(dead_letters.ALL)
"""


def test_a_killed_retry_leaves_the_letter(settings: Settings) -> None:
    """A process that is killed between confirm and ack has sent the task, and its letter is still there."""
    set_aside(settings, [task_message()])
    killed = subprocess.run([sys.executable, "-c", KILLED_BEFORE_THE_ACK], env=environment_of(settings), check=False)
    assert killed.returncode == -signal.SIGKILL
    are_back(settings, 1)
    [headers] = headers_in(settings, "default", 1)
    assert (headers["attempt"], headers["repeated"]) == (2, True)


def test_a_refused_publish_keeps_its_letter_and_tells_how_far_it_came(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full queue ends the retry with an error; confirmed ones are gone, the others are where they were."""
    set_aside(settings, [task_message() for _ in range(10)])
    publish = Connection.publish
    calls = iter(range(100))

    def refuse_the_fifth(connection: Connection, *message: Any) -> Any:
        if next(calls) == 4:
            raise NotConfirmedError("the queue is full")
        return publish(connection, *message)

    monkeypatch.setattr(Connection, "publish", refuse_the_fifth)
    with pytest.raises(NotConfirmedError, match=r"the queue is full; \d dead letters were retried") as failed:
        retry(ALL)
    retried = int(str(failed.value).partition("; ")[2][0])
    assert retried >= 4  # how many were on their way when the refusal came depends on how fast the letters came
    are_back(settings, 10 - retried)


def test_those_on_their_way_when_one_is_refused_are_counted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error tells of all that are gone, also of those whose confirms came after the refusal."""
    set_aside(settings, [task_message() for _ in range(10)])
    publish, next_letter = Connection.publish, DeadQueue._next
    calls = iter(range(100))

    async def confirm_late(confirmed: asyncio.Future[None]) -> None:
        await asyncio.sleep(0.3)
        await confirmed

    def refuse_the_fifth(connection: Connection, *message: Any) -> Any:
        if next(calls) == 4:
            raise NotConfirmedError("the queue is full")
        return confirm_late(publish(connection, *message))

    async def come_one_by_one(queue: DeadQueue) -> Any:
        await asyncio.sleep(0.02)
        return await next_letter(queue)

    monkeypatch.setattr(Connection, "publish", refuse_the_fifth)
    monkeypatch.setattr(DeadQueue, "_next", come_one_by_one)
    with pytest.raises(NotConfirmedError, match="the queue is full; 4 dead letters were retried"):
        retry(ALL)
    are_back(settings, 6)


def test_an_interrupted_look_gives_everything_back(settings: Settings) -> None:
    """Ctrl-C in the middle of a look leaves every letter in the queue, in its order."""
    set_aside(settings, [task_message() for _ in range(20)])
    before = list_dead_letters()

    def interrupt(done: int, total: int) -> None:
        if done == 10:
            signal.raise_signal(signal.SIGINT)  # in this thread, and before it returns

    with pytest.raises(KeyboardInterrupt):
        list_dead_letters(on_progress=interrupt)
    assert list_dead_letters() == before


def test_a_lost_connection_is_told_and_loses_no_letter(settings: Settings) -> None:
    """A cut in the middle of a look raises ConnectionLostError: nothing is shown or removed twice."""
    set_aside(settings, [task_message() for _ in range(200)])
    with proxy_to(settings.broker_url) as (proxy, url):

        def cut(done: int, total: int) -> None:
            if done == 100:
                proxy.cut()

        configure(replace(settings, broker_url=url))
        with pytest.raises(ConnectionLostError, match="dead letters were purged before that"):
            purge(ALL, on_progress=cut)
    configure(settings)
    eventually(lambda: 0 < dead_count(settings) <= 200)
    assert len({letter.id for letter in list_dead_letters()}) == dead_count(settings)


def test_another_consumer_is_waited_for_and_then_told(settings: Settings) -> None:
    """What another program holds cannot be seen: a look does not pretend that it has seen everything."""
    set_aside(settings, [task_message()])
    configure(replace(settings, send_timeout=0.5))
    with channel_to(settings.broker_url) as channel:
        channel.basic_consume(Names(settings.namespace).dead_queue, lambda *_: None)
        with pytest.raises(BrokerError, match="another program consumes from"):
            list_dead_letters()
    configure(settings)
    assert len(list_dead_letters()) == 1


def test_an_unreachable_broker_is_told(settings: Settings) -> None:
    """Without a broker each function raises within its deadline."""
    configure(replace(settings, broker_url="amqp://guest:guest@127.0.0.1:1/", connect_timeout=0.5))
    for act in (list_dead_letters, lambda: show("x"), lambda: retry(ALL), lambda: purge(ALL)):
        with pytest.raises(BrokerUnreachableError, match=r"no RabbitMQ at 127\.0\.0\.1:1"):
            act()


def test_a_retry_is_signed_and_vouches_for_nothing_unsigned(settings: Settings) -> None:
    """With signing keys, a signed task is signed again for its next attempt; an unsigned or altered one stays."""
    signing = replace(settings, signing_keys="k" * 32)
    signer = Signer.of(signing)
    identity = TaskIdentity(ids.new_task_id("acme"), "shop.tasks.add", "acme", 1, None)
    signed = encode_task(identity, BODY, signer)
    altered = replace(signed, body=msgpack.packb({"args": [9], "kwargs": {}}))
    set_aside(settings, [signed, altered, task_message()])
    configure(signing)
    outcome = retry(ALL)
    assert outcome.count == 1
    assert [reason.partition(":")[0] for _, reason in outcome.refused] == ["altered", "unsigned"]
    [sent] = take_all(settings.broker_url, Names(settings.namespace).task_queue("default"), 1)
    again = decode_identity(Envelope(sent.body, "application/msgpack", headers=sent.headers), signer)
    assert again == replace(identity, attempt=2)
