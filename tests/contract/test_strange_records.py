"""A recorder meets records that no worker of ours has made: it sets them aside, and records all others."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from typing import Any

import pytest

from limetask import Settings
from limetask.amqp import Connection
from limetask.message import (
    Alive,
    Begun,
    Claim,
    Echo,
    Envelope,
    HandlerBindings,
    HandlerGone,
    Released,
    Returned,
    WorkerLost,
)
from limetask.records import (
    encode_alive,
    encode_claim,
    encode_completion,
    encode_echo,
    encode_handler_gone,
    encode_handlers,
    encode_released,
    encode_returned,
    encode_started,
    encode_worker_lost,
)
from limetask.store import Store
from limetask.topology import Names
from limetask_worker import recorder as recorder_module
from limetask_worker.recorder import Recorder
from tests.broker import queue_length, take_all
from tests.contract.records import ended, failed, new_id, random_text, started, status_of

DEADLINE = 30.0
WORKER = "host:12:a"

ODD_TEXTS: list[Any] = ["a\x00b", None, 7, [], {}]
ODD_TIMES: list[Any] = [
    "0001-01-01T00:00:00+00:00",
    "0001-01-01T00:00:00+05:00",
    "9999-12-31T23:59:59.999999+00:00",
    "9999-12-31T23:59:59-05:00",
    "1969-12-31T23:59:59+00:00",
    "2026-03-29T01:00:00",
    "yesterday",
    "",
    None,
    1774746000,
]
ODD_NUMBERS: list[Any] = [0, -1, 2**31, 2**63, 10**30, 1.5, True, "1", None]
ODD_IDS: list[Any] = ["", "x", "a\x00b", "0" * 36, "\u0661" * 36, None, 7]


def start() -> Any:
    return started(new_id())


def release() -> Released:
    one = start()
    return Released(one.task_id, one.attempt, one.worker, one.started_at)


def claim() -> Claim:
    return Claim(start(), may_run_again=False, reply_to="test.reply.abc")


def handler() -> HandlerBindings:
    return HandlerBindings("pkg.handlers.tell", ["core.task.#.failure.v1"], start().started_at)


def variants(envelope: Envelope, field: str, odd: list[Any]) -> Iterator[Envelope]:
    """The same message with one value of its JSON replaced; `field` is the way there, with dots."""
    for value in odd:
        fields = json.loads(envelope.body)
        inner: Any = fields
        *way, last = [int(part) if part.isdigit() else part for part in field.split(".")]
        for part in way:
            inner = inner[part]
        inner[last] = value
        yield replace(envelope, body=json.dumps(fields).encode())


def strange(envelope: Envelope, **odd: Any) -> list[Envelope]:
    bodies = [b"", b"{", b"null", b"7", b'"text"', b"[7]", b'{"a": 1}', b"\xff", b'{"task_id": "\\ud800"}']
    return [replace(envelope, body=body) for body in bodies] + [
        variant for field, values in odd.items() for variant in variants(envelope, field.replace("__", "."), values)
    ]


OF_START: dict[str, list[Any]] = {
    "task_id": ODD_IDS,
    "task_name": ODD_TEXTS,
    "app": ODD_TEXTS,
    "attempt": ODD_NUMBERS,
    "worker": ODD_TEXTS,
    "acks_late": [None, 1, "true"],
    "sent_at": ODD_TIMES,
    "started_at": ODD_TIMES,
}
OF_END: dict[str, list[Any]] = {name: odd for name, odd in OF_START.items() if name != "acks_late"} | {
    "worker": ["a\x00b", 7, [], {}],
    "started_at": [odd for odd in ODD_TIMES if odd is not None],
    "finished_at": ODD_TIMES,
    "status": ["PENDING", "STARTED", "", None, 7, []],
    "error": [7, "text", [], {"type": 7, "message": "", "traceback": ""}, {"kind": "x"}],
}
STRANGE = {
    "started": strange(encode_started([start()]), **{f"0__{name}": odd for name, odd in OF_START.items()}),
    "completion": strange(encode_completion(failed(new_id())), **OF_END),
    "claim": strange(
        encode_claim(claim()),
        may_begin_elsewhere=[None, 1],
        **{f"start__{name}": odd for name, odd in OF_START.items()},
        may_run_again=[None, 1],
        reply_to=[None, 7],
    ),
    "released": strange(
        encode_released(release()), task_id=ODD_IDS, attempt=ODD_NUMBERS, worker=ODD_TEXTS, started_at=ODD_TIMES
    ),
    "alive": strange(
        encode_alive(Alive(start().started_at, {WORKER: [new_id()]})),
        seen_at=ODD_TIMES,
        workers=[None, 7, "text", [], {"a\x00b": []}, {WORKER: 7}, {WORKER: [7]}],
    ),
    "returned": strange(
        encode_returned(Returned([(new_id(), 1)])),
        tasks=[None, 7, "text", [7], [None], [["x", 1, 2]], [[7, 1]]],
        tasks__0__1=ODD_NUMBERS,
    ),
    "echo": strange(encode_echo(Echo("host:1:r", 1.0)), recorder=ODD_TEXTS, sent_at=[None, "inf", True, 1e308, [], {}]),
    "worker-lost": strange(
        encode_worker_lost(WorkerLost(WORKER, "killed", start().started_at, [Begun(new_id(), 1)])),
        worker=ODD_TEXTS,
        reason=[None, 7],
        lost_at=ODD_TIMES,
        begun=[7, "text", [7], [None], {"a": 1}],
        begun__0__attempt=ODD_NUMBERS,
        begun__0__exceeded=["nan", True, 1e308, [], {}],
    ),
    "handlers": strange(
        encode_handlers([handler()]),
        **{
            "0__name": [*ODD_TEXTS, "", "n" * 81, "n" * 256, "n" * 100_000],
            "0__bindings": [7, None, [7], [None], ["a\x00b"], ["b" * 256]],
            "0__declared_at": ODD_TIMES,
        },
    ),
    "handler-gone": strange(
        encode_handler_gone(HandlerGone("pkg.handlers.tell", start().started_at)), name=ODD_TEXTS, gone_at=ODD_TIMES
    ),
}


@pytest.fixture(autouse=True)
def watches_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes on beside the recording goes on during these tests, too."""
    monkeypatch.setattr(recorder_module, "_WATCH_EVERY_SECONDS", 0.05)


@asynccontextmanager
async def recording(settings: Settings) -> AsyncIterator[Connection]:
    """Run a recorder, and fail if it ends; gives a connection to publish with."""
    consuming, publishing, ours = (Connection(settings, f"test {number}") for number in range(3))
    recorder, stop = Recorder(settings, "host:1:r", consuming, publishing), asyncio.Event()
    await recorder.open()
    for connection in (consuming, publishing, ours):
        await connection.ready(DEADLINE)
    await recorder.start()
    running = asyncio.ensure_future(recorder.run(stop))
    try:
        async with asyncio.timeout(DEADLINE):
            yield ours
    finally:
        stop.set()
        await asyncio.wait([running], timeout=DEADLINE)
        for connection in (consuming, publishing, ours):
            await connection.close()
        recorder.close()
        assert running.done(), "the recorder does not stop"
        running.result()


def record_between_good_ones(settings: Settings, strange_ones: list[Envelope]) -> list[str]:
    """Send these to a recorder, each between two good records, and return the ids of those once they are recorded."""
    task_ids = [new_id() for _ in range(len(strange_ones) + 1)]

    async def scenario() -> None:
        async with recording(settings) as connection:
            queue = Names(settings.namespace).results_queue
            sent = []
            for number, task_id in enumerate(task_ids):
                sent.append(connection.publish("", queue, encode_completion(ended(task_id))))
                sent += [connection.publish("", queue, one) for one in strange_ones[number : number + 1]]
            await asyncio.gather(*sent)
            with closing(Store(settings.store_url)) as store:
                while not all(store.read(task_id, "shop") for task_id in task_ids):
                    await asyncio.sleep(0.02)

    asyncio.run(scenario())
    return task_ids


@pytest.mark.parametrize("kind", STRANGE)
def test_strange_records_are_set_aside_and_the_others_recorded(settings_for_each_store: Settings, kind: str) -> None:
    """Whatever is strange, and in whatever kind of record: each one becomes a dead letter, and stops nothing."""
    settings = settings_for_each_store
    record_between_good_ones(settings, STRANGE[kind])
    letters = take_all(settings.broker_url, Names(settings.namespace).dead_queue, len(STRANGE[kind]))
    assert Counter(letter.body for letter in letters) == Counter(one.body for one in STRANGE[kind])
    assert {letter.headers["kind"] for letter in letters} == {kind}
    queue = Names(settings.namespace).results_queue
    left = take_all(settings.broker_url, queue, queue_length(settings.broker_url, queue))
    assert {letter.headers["kind"] for letter in left} <= {"echo"}  # one of its own, behind the recorder's last look


@pytest.mark.parametrize("odd", [{"app": "a\x00b"}, {"started_at": "0001-01-01T00:00:00+00:00"}, None])
def test_good_starts_in_one_message_with_a_strange_one_are_recorded(
    settings_for_each_store: Settings, odd: dict[str, Any] | None
) -> None:
    """A worker tells of many starts together, and those of other tasks count; the message is set aside once."""
    settings = settings_for_each_store
    good = [start(), start()]
    fields = json.loads(encode_started(good).body)
    strange_ones = [odd and fields[0] | odd] * 2
    message = replace(encode_started(good), body=json.dumps([fields[0], *strange_ones, fields[1]]).encode())
    record_between_good_ones(settings, [message])
    with closing(Store(settings.store_url)) as store:
        assert [store.read(one.task_id, "shop") for one in good] == [status_of(one) for one in good]
    [letter] = take_all(settings.broker_url, Names(settings.namespace).dead_queue, 1)
    assert letter.body == message.body


def test_what_a_database_alone_refuses_is_set_aside_once(settings: Settings, postgresql_url: str) -> None:
    """Names that no index can hold, as only the database knows: one message of several is one dead letter."""
    settings = replace(settings, store_url=postgresql_url)
    endless = random_text(20_000)
    starts = [replace(start(), worker=endless) for _ in range(2)]
    good = start()
    lost = WorkerLost(endless, "killed", start().started_at, None)
    strange_ones = [
        encode_started([*starts, good]),
        encode_claim(Claim(starts[0], False, "")),
        encode_worker_lost(lost),
    ]
    record_between_good_ones(settings, strange_ones)
    letters = take_all(settings.broker_url, Names(settings.namespace).dead_queue, 2)
    assert [letter.body for letter in letters] == [one.body for one in strange_ones[:2]]
    with closing(Store(settings.store_url)) as store:
        assert store.read(good.task_id, "shop") == status_of(good)
