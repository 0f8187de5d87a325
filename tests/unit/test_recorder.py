"""What the recorder writes together, and when, between a broker that is played here and a real SQLite store."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from limetask import ErrorInfo, Settings, Status, TaskStatus, ids
from limetask.amqp import Connection, Delivery, Subscription
from limetask.message import (
    RECORD_KINDS,
    Alive,
    Claim,
    Completion,
    Decision,
    Echo,
    Envelope,
    MessageKind,
    Refused,
    Released,
    Returned,
    Started,
    Verdict,
    WorkerLost,
)
from limetask.records import (
    decode_completion,
    decode_verdict,
    encode_alive,
    encode_claim,
    encode_completion,
    encode_echo,
    encode_refused,
    encode_released,
    encode_returned,
    encode_started,
    encode_worker_lost,
)
from limetask.store import Store
from limetask.topology import Names
from limetask_worker import recorder as recorder_module
from limetask_worker import verdicts as verdicts_module
from limetask_worker.echoes import Echoes
from limetask_worker.recorder import Recorder
from limetask_worker.starts import Starts
from limetask_worker.store_writer import StoreWriter
from limetask_worker.verdicts import Verdicts
from tests.unit.messages import FAILURE

DEADLINE = 10.0
NAME = "recorder.1"
NOW = datetime(2026, 11, 20, 10, 5, 24, 134744, tzinfo=UTC)


@dataclass
class Broker:
    """Stands for both of the recorder's connections; `facts` are its acks and what its store did, in their order."""

    facts: list[str] = field(default_factory=list)
    letters: list[Envelope] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    presumed: list[Completion] = field(default_factory=list)
    subscription: Subscription | None = None
    delivered: int = 0
    epoch: int = 1
    is_ready: bool = True
    returns_echoes: bool = True
    takes_echoes_in_time: bool = True
    is_sign: bool = False

    async def consume(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.facts.append("consumes")

    async def cancel_consumers(self) -> None:
        self.facts.append("cancelled")

    async def declare(self, topology: object) -> None:
        """All is there."""

    async def ready(self, timeout: float) -> None:
        """It always is. Whoever waits for it gives a sign of life next, which no test hears."""
        self.is_sign = True

    async def publish_until_confirmed(self, exchange: str, key: str, envelope: Envelope) -> None:
        self.presumed.append(decode_completion(envelope.body))

    async def publish_if_it_fits(self, exchange: str, key: str, envelope: Envelope) -> None:
        self.letters.append(envelope)

    def publish(self, exchange: str, key: str, envelope: Envelope) -> asyncio.Future[None]:
        if envelope.kind == "verdict":
            self.verdicts.append(decode_verdict(envelope.body))
        if envelope.kind == "echo" and not self.is_sign:
            if self.returns_echoes:
                self.deliver(envelope)
            else:
                self.facts.append("an echo is lost")
        self.is_sign = False
        confirmed = asyncio.get_running_loop().create_future()
        confirmed.set_result(None)
        return confirmed

    def holds(self, delivery: Delivery) -> bool:
        return self.is_ready and delivery.epoch == self.epoch

    def ack(self, delivery: Delivery, *, multiple: bool) -> None:
        self.facts.append(f"acked {delivery.tag}")

    def deliver(self, *envelopes: Envelope) -> None:
        assert self.subscription is not None
        for envelope in envelopes:
            self.delivered += 1
            self.subscription.on_delivery(Delivery(self.delivered, self.epoch, "limetask.results", False, envelope))


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    """A broker that notes how many records each transaction holds."""
    broker, merge, claim = Broker(), StoreWriter.merge, StoreWriter.claim_all

    def noted_merge(writer: StoreWriter, records: Sequence[Any]) -> None:
        merge(writer, records)
        broker.facts.append(f"wrote {len(records)}")

    def noted_claim(writer: StoreWriter, claims: Sequence[Claim], *arguments: Any, **options: Any) -> Any:
        broker.facts.append(f"decided {len(claims)}")
        return claim(writer, claims, *arguments, **options)

    async def taken(_echoes: Echoes, _sent_at: float) -> bool:
        return broker.takes_echoes_in_time

    monkeypatch.setattr(Echoes, "was_taken_in_time", taken)
    monkeypatch.setattr(StoreWriter, "merge", noted_merge)
    monkeypatch.setattr(StoreWriter, "claim_all", noted_claim)
    return broker


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with a store that does not exist yet."""
    return Settings(store_url=f"sqlite:///{tmp_path / 'status.db'}")


@asynccontextmanager
async def recording(settings: Settings, broker: Broker) -> AsyncIterator[None]:
    """Run a recorder until the block ends and all is written."""
    connection = cast(Connection, broker)
    recorder, stop = Recorder(settings, NAME, connection, connection), asyncio.Event()
    await recorder.open()
    await recorder.start()
    running = asyncio.ensure_future(recorder.run(stop))
    try:
        async with asyncio.timeout(DEADLINE):
            yield
            stop.set()
            await running
    finally:
        running.cancel()
        recorder.close()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario()

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def started() -> Started:
    return Started(ids.new_task_id("shop"), "pkg.tasks.add", "shop", 1, "host:1:a", False, NOW, NOW)


def ended(start: Started, **changes: Any) -> Envelope:
    end = Completion(
        id="event",
        task_id=start.task_id,
        task_name=start.task_name,
        app=start.app,
        status=Status.SUCCESS,
        result=3,
        error=None,
        attempt=1,
        worker=start.worker,
        sent_at=NOW,
        started_at=NOW,
        finished_at=NOW,
    )
    return encode_completion(replace(end, **changes))


def claim_of(
    start: Started, asker: str = "abc", *, may_run_again: bool = False, may_begin_elsewhere: bool = False
) -> Envelope:
    return encode_claim(Claim(start, may_run_again, Names("limetask").reply_key(asker), may_begin_elsewhere))


def recorded(settings: Settings, start: Started) -> TaskStatus | None:
    with closing(Store(settings.store_url)) as store:
        return store.read(start.task_id, start.app)


def has_ended(settings: Settings, start: Started) -> bool:
    status = recorded(settings, start)
    return status is not None and status.is_completed()


@pytest.fixture
def no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever may wait for more waits for longer than a test does."""
    monkeypatch.setattr(recorder_module, "_LINGER_SECONDS", 3600.0)


@pytest.fixture
def no_waiting_for_former_holders(monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that waits for its former holder's start waits for longer than a test does."""
    monkeypatch.setattr(verdicts_module, "FORMER_HOLDER_SECONDS", 3600.0)


@pytest.mark.usefixtures("no_hurry")
def test_a_start_is_written_with_its_end(settings: Settings, broker: Broker) -> None:
    """A task that takes no time is one transaction: its start waits for its end, and that for nothing."""
    start = started()

    async def scenario() -> None:
        async with recording(settings, broker):
            broker.deliver(encode_started([start]))
            await asyncio.sleep(0)
            broker.deliver(ended(start))
            await until(lambda: "acked 2" in broker.facts)

    run(scenario)
    assert broker.facts[1:] == ["wrote 2", "acked 2"]
    assert has_ended(settings, start)


@pytest.mark.usefixtures("no_hurry")
def test_a_lone_end_waits_for_nothing(settings: Settings, broker: Broker) -> None:
    """Somebody may look for it."""

    async def scenario() -> None:
        async with recording(settings, broker):
            for number in range(1, 4):
                broker.deliver(ended(started()))
                await until(lambda tag=number: f"acked {tag}" in broker.facts)  # type: ignore[misc]

    run(scenario)
    assert broker.facts[1:] == ["wrote 1", "acked 1", "wrote 1", "acked 2", "wrote 1", "acked 3"]


def test_a_lone_start_is_written_soon(settings: Settings, broker: Broker) -> None:
    """A task that takes long is shown as started all the same."""

    async def scenario() -> None:
        async with recording(settings, broker):
            broker.deliver(encode_started([started()]))
            await until(lambda: "acked 1" in broker.facts)

    run(scenario)


def test_what_is_there_shares_a_transaction(settings: Settings, broker: Broker) -> None:
    """However many messages have arrived, their records are one transaction and one ack."""
    starts = [started() for _ in range(300)]

    async def scenario() -> None:
        async with recording(settings, broker):
            broker.deliver(encode_started(starts), *[ended(start) for start in starts])
            await until(lambda: "acked 301" in broker.facts)

    run(scenario)
    assert broker.facts[1:] == ["wrote 600", "acked 301"]
    assert all(has_ended(settings, start) for start in starts)


def test_at_a_high_rate_what_comes_soon_shares_a_transaction(
    settings: Settings, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An end is not written at once when many come: those that come a little later go with it."""
    monkeypatch.setattr(recorder_module, "_HIGH_RATE", -1.0)
    monkeypatch.setattr(recorder_module, "_GATHER_SECONDS", 0.5)

    async def scenario() -> None:
        async with recording(settings, broker):
            broker.deliver(ended(started()))
            await until(lambda: "acked 1" in broker.facts)
            for _ in range(3):
                broker.deliver(ended(started()))
                await asyncio.sleep(0)
            await until(lambda: "acked 4" in broker.facts)

    run(scenario)
    assert broker.facts[1:] == ["wrote 1", "acked 1", "wrote 3", "acked 4"]


@pytest.mark.parametrize(("limit", "value"), [("_BATCH", 2), ("_BATCH_BYTES", 1 + len(ended(started()).body))])
def test_a_transaction_has_a_limit(
    settings: Settings, broker: Broker, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    """Neither too many messages nor too many bytes are written at once."""
    monkeypatch.setattr(recorder_module, limit, value)

    async def scenario() -> None:
        async with recording(settings, broker):
            broker.deliver(*[ended(started()) for _ in range(5)])
            await until(lambda: "acked 5" in broker.facts)

    run(scenario)
    assert broker.facts[1:] == ["wrote 2", "acked 2", "wrote 2", "acked 4", "wrote 1", "acked 5"]


def test_a_claim_sees_all_starts_before_it(settings: Settings, broker: Broker) -> None:
    """What comes before a claim is written before it is decided, and what comes after it is written after."""
    start = started()

    async def scenario() -> None:
        async with recording(settings, broker):
            broker.deliver(encode_started([start]), claim_of(start), claim_of(started()), ended(start))
            await until(lambda: "acked 4" in broker.facts)

    run(scenario)
    assert broker.facts[1:] == ["wrote 1", "decided 2", "wrote 1", "acked 4"]
    assert [verdict.decision for verdict in broker.verdicts] == [Decision.RUN, Decision.RUN]


@pytest.mark.usefixtures("no_waiting_for_former_holders")
def test_a_claim_waits_for_the_start_of_whoever_held_the_message(settings: Settings, broker: Broker) -> None:
    """The former holder got the message as new, and its start arrives after the claim: it alone runs the task."""
    holder = started()
    claimer = replace(holder, worker="b")

    async def scenario() -> None:
        async with recording(settings, broker):
            broker.deliver(claim_of(claimer, may_begin_elsewhere=True), encode_started([holder]))
            broker.deliver(encode_returned(Returned([(holder.task_id, 1)])))  # ends the waiting
            await until(lambda: len(broker.verdicts) > 0)

    run(scenario)
    assert [(one.decision, one.worker) for one in broker.verdicts] == [(Decision.STARTED_ELSEWHERE, holder.worker)]


def test_a_claim_is_granted_if_no_start_arrives(
    settings: Settings, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The former holder is gone; its message, and others that wait, are decided one by one."""
    monkeypatch.setattr(verdicts_module, "FORMER_HOLDER_SECONDS", 0.05)
    starts = [started() for _ in range(3)]

    async def scenario() -> None:
        async with recording(settings, broker):
            broker.deliver(*[claim_of(start, may_begin_elsewhere=True) for start in starts])
            await until(lambda: len(broker.verdicts) == len(starts))

    run(scenario)
    assert {one.task_id: one.decision for one in broker.verdicts} == {one.task_id: Decision.RUN for one in starts}


@pytest.mark.usefixtures("no_waiting_for_former_holders")
@pytest.mark.parametrize("told", ["before the claim", "after the claim"])
def test_a_claim_does_not_wait_for_a_holder_that_has_let_go(settings: Settings, broker: Broker, told: str) -> None:
    """A worker that returns messages unstarted says so, and whoever gets them next begins at once."""
    start = started()
    messages = [encode_returned(Returned([(start.task_id, 1)])), claim_of(start, may_begin_elsewhere=True)]

    async def scenario() -> None:
        async with recording(settings, broker):
            broker.deliver(*(messages if told == "before the claim" else reversed(messages)))
            await until(lambda: len(broker.verdicts) == 1)

    run(scenario)
    assert broker.verdicts[0].decision is Decision.RUN


@pytest.mark.usefixtures("no_waiting_for_former_holders")
def test_a_claim_does_not_wait_for_a_start_that_was_taken_back(settings: Settings, broker: Broker) -> None:
    """The holder had started the task, and has not begun it: that is as good as letting it go."""
    holder = started()
    claimer = replace(holder, worker="b")

    async def scenario() -> None:
        async with recording(settings, broker):
            broker.deliver(encode_started([holder]), encode_released(release_of(holder)))
            broker.deliver(claim_of(claimer, may_begin_elsewhere=True))
            await until(lambda: len(broker.verdicts) == 1)

    run(scenario)
    assert broker.verdicts[0].decision is Decision.RUN


@pytest.mark.usefixtures("no_waiting_for_former_holders")
def test_to_give_up_a_claim_says_nothing_of_whoever_held_the_message(settings: Settings, broker: Broker) -> None:
    """The second worker to claim waits as the first has done: the start of the former holder may yet arrive."""
    holder = started()
    first, second = replace(holder, worker="b"), replace(holder, worker="c")

    async def scenario() -> None:
        async with recording(settings, broker):
            broker.deliver(claim_of(first, "b", may_begin_elsewhere=True), encode_released(release_of(first)))
            broker.deliver(claim_of(second, "c", may_begin_elsewhere=True), encode_started([holder]))
            broker.deliver(encode_returned(Returned([(holder.task_id, 1)])))  # ends the waiting
            await until(lambda: len(broker.verdicts) > 0)

    run(scenario)
    assert [(one.decision, one.worker) for one in broker.verdicts] == [(Decision.STARTED_ELSEWHERE, holder.worker)]


def test_a_claim_that_was_taken_back_is_not_decided(
    settings: Settings, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that asks and gives up before it has its answer has not begun the task."""
    monkeypatch.setattr(verdicts_module, "_NEWS_SECONDS", 0.2)
    first = replace(started(), acks_late=True)
    second, third = replace(first, worker="b"), replace(first, worker="c")

    async def scenario() -> None:
        async with recording(settings, broker):
            broker.deliver(encode_started([first]), claim_of(second, "b", may_run_again=True))
            broker.deliver(encode_released(release_of(second)), claim_of(third, "c", may_run_again=True))
            await until(lambda: len(broker.verdicts) > 0)

    run(scenario)
    assert [(verdict.decision, verdict.begun) for verdict in broker.verdicts] == [(Decision.RUN, 2)]


def test_a_claim_that_is_taken_back_while_it_is_decided_leaves_no_start(
    settings: Settings, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The release waits for the decision, and comes after it in the store."""
    monkeypatch.setattr(verdicts_module, "_NEWS_SECONDS", 0.05)
    deciding, go_on = asyncio.Event(), asyncio.Event()
    decide_at_last = Verdicts._decide_at_last

    async def decide_slowly(verdicts: Verdicts, claim: Claim, owner: str) -> None:
        deciding.set()
        await go_on.wait()
        await decide_at_last(verdicts, claim, owner)

    monkeypatch.setattr(Verdicts, "_decide_at_last", decide_slowly)
    first = started()
    second = replace(first, worker="b")

    async def scenario() -> None:
        async with recording(settings, broker):
            broker.deliver(encode_started([first]), claim_of(second, "b"))
            await deciding.wait()
            broker.deliver(encode_released(release_of(first)))
            broker.deliver(encode_released(release_of(second)))
            asyncio.get_running_loop().call_later(0.2, go_on.set)
            await until(lambda: "acked 5" in broker.facts)

    run(scenario)
    assert recorded(settings, first) is None


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_the_claim_of_a_dead_worker_is_not_recorded(
    settings: Settings, broker: Broker, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Whether it comes after the news, or waits for a former holder when they come: nobody would settle that start."""
    monkeypatch.setattr(verdicts_module, "FORMER_HOLDER_SECONDS", 0.2)
    start = started()
    claim = claim_of(start, may_begin_elsewhere=True)
    death = encode_worker_lost(WorkerLost(start.worker, "killed", NOW, begun=()))
    other = replace(start, task_id=ids.new_task_id("shop"), worker="host:1:b")

    async def scenario() -> None:
        async with recording(settings, broker):
            broker.deliver(
                *([death, claim] if when == "before" else [claim, death]), claim_of(other, may_begin_elsewhere=True)
            )
            await until(lambda: len(broker.verdicts) == 1)

    run(scenario)
    assert [verdict.task_id for verdict in broker.verdicts] == [other.task_id]
    assert recorded(settings, start) is None


async def let_wait_for_an_echo(broker: Broker, claim: Envelope) -> None:
    """Return when a claim has had its wait, and the echo that the recorder sent then is lost."""
    broker.returns_echoes = False
    broker.deliver(claim)
    await until(lambda: "an echo is lost" in broker.facts)


def test_a_claim_that_waits_is_decided_only_by_who_hears_itself(
    settings: Settings, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The news that it waits for may be in the queue, or with another recorder since."""
    monkeypatch.setattr(verdicts_module, "FORMER_HOLDER_SECONDS", 0.01)
    unsure, sure = started(), replace(started(), worker="host:1:b")

    async def scenario() -> None:
        async with recording(settings, broker):
            await let_wait_for_an_echo(broker, claim_of(unsure, may_begin_elsewhere=True))
            broker.deliver(claim_of(sure))
            await until(lambda: len(broker.verdicts) == 1)
            broker.deliver(encode_echo(Echo(NAME, time.monotonic())))
            await until(lambda: len(broker.verdicts) == 2)

    run(scenario)
    assert [verdict.task_id for verdict in broker.verdicts] == [sure.task_id, unsure.task_id]


def test_a_claim_that_is_asked_again_does_not_wait_anew(
    settings: Settings, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker asks every few seconds, and the queue may be longer than that: the echo comes after the copy."""
    monkeypatch.setattr(verdicts_module, "FORMER_HOLDER_SECONDS", 0.01)
    claim = claim_of(started(), may_begin_elsewhere=True)

    async def scenario() -> None:
        async with recording(settings, broker):
            await let_wait_for_an_echo(broker, claim)
            monkeypatch.setattr(verdicts_module, "FORMER_HOLDER_SECONDS", 60.0)
            broker.deliver(claim, encode_echo(Echo(NAME, time.monotonic())))
            await until(lambda: len(broker.verdicts) == 1)

    run(scenario)


def test_a_claim_is_not_decided_when_its_task_may_be_forgotten(
    settings: Settings, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after days on standby: what is no longer in the store would begin again."""
    monkeypatch.setattr(verdicts_module, "FORMER_HOLDER_SECONDS", 0.01)
    monkeypatch.setattr(verdicts_module, "_FORGOTTEN_SECONDS", -1.0)
    forgotten, other = started(), replace(started(), worker="host:1:b")

    async def scenario() -> None:
        async with recording(settings, broker):
            await let_wait_for_an_echo(broker, claim_of(forgotten, may_begin_elsewhere=True))
            broker.deliver(encode_echo(Echo(NAME, time.monotonic())), claim_of(other))
            await until(lambda: len(broker.verdicts) == 1)

    run(scenario)
    assert [verdict.task_id for verdict in broker.verdicts] == [other.task_id]


def test_a_recorder_reads_only_what_it_holds(settings: Settings, broker: Broker) -> None:
    """What came by a connection that is lost is delivered again, to whoever hears the news since then."""
    lost, held = started(), started()

    async def scenario() -> None:
        async with recording(settings, broker):
            broker.deliver(encode_started([lost]))
            broker.epoch += 1
            broker.deliver(ended(held))
            await until(lambda: "acked 2" in broker.facts)

    run(scenario)
    assert recorded(settings, lost) is None
    assert has_ended(settings, held)


def test_a_recorder_that_hears_nothing_consumes_anew(
    settings: Settings, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue may have lost it; one that hears something, and be it itself, is left alone."""
    monkeypatch.setattr(recorder_module, "_WATCH_EVERY_SECONDS", 0.01)

    async def scenario() -> None:
        async with recording(replace(settings, worker_timeout=0.1), broker):
            await until(lambda: broker.facts[:5] == ["consumes", *("cancelled", "consumes") * 2])

    run(scenario)


@pytest.mark.parametrize(
    ("recorder", "ahead", "in_time", "counts"),
    [(NAME, 0.0, True, True), (NAME, 0.0, False, False), ("another.2", 0.0, True, False), (NAME, 1e6, True, False)],
)
def test_only_who_hears_itself_takes_a_worker_for_silent(
    settings: Settings, broker: Broker, recorder: str, ahead: float, *, in_time: bool, counts: bool
) -> None:
    """A worker that gives no sign of life loses its early tasks by this recorder's echoes, and by nobody else's.

    What has not been sent yet is nobody's, and one that the broker kept waiting, as in an alarm, proves nothing.
    """
    broker.takes_echoes_in_time = in_time
    start = started()
    now = time.monotonic() + ahead
    moments = [now - settings.worker_timeout * part / 6 for part in reversed(range(10))]

    async def scenario() -> None:
        async with recording(settings, broker):
            broker.deliver(encode_started([start]), *[encode_echo(Echo(recorder, moment)) for moment in moments])
            await until(lambda: "acked 11" in broker.facts)

    run(scenario)
    lost = {(end.task_id, end.error and end.error.type) for end in broker.presumed}
    assert lost == ({(start.task_id, "WorkerLost")} if counts else set())


@pytest.mark.parametrize(("age", "ahead", "counts"), [(3600, 0, True), (0, 0, False), (0, 86_400, False)])
def test_a_sign_of_life_from_the_future_says_nothing_of_new_tasks(
    settings: Settings, broker: Broker, age: float, ahead: float, *, counts: bool
) -> None:
    """A task that its worker does not have in hand has ended, unless it was started since the worker has said so."""
    now = datetime.now(UTC)
    start = replace(started(), started_at=now - timedelta(seconds=age))
    sign = encode_alive(Alive(now + timedelta(seconds=ahead), {start.worker: []}))
    moments = [time.monotonic() - settings.worker_timeout * part / 6 for part in reversed(range(10))]
    said = [envelope for moment in moments for envelope in (sign, encode_echo(Echo(NAME, moment)))]

    async def scenario() -> None:
        async with recording(settings, broker):
            broker.deliver(encode_started([start]), *said)
            await until(lambda: "acked 21" in broker.facts)

    run(scenario)
    lost = {(end.task_id, end.error and end.error.type) for end in broker.presumed}
    assert lost == ({(start.task_id, "EndLost")} if counts else set())


@pytest.mark.parametrize(
    "bad",
    [
        ended(started(), app="other"),
        replace(ended(started()), body=b"{"),
        replace(ended(started()), kind="gossip"),
    ],
    ids=["a foreign task", "no JSON", "an unknown kind"],
)
def test_what_cannot_be_recorded_is_set_aside(settings: Settings, broker: Broker, bad: Envelope) -> None:
    """A bad message becomes a dead letter, and those beside it are recorded."""
    before, after = started(), started()

    async def scenario() -> None:
        async with recording(settings, broker):
            broker.deliver(ended(before), bad, ended(after))
            await until(lambda: "acked 3" in broker.facts)

    run(scenario)
    assert [letter.body for letter in broker.letters] == [bad.body]
    assert has_ended(settings, before)
    assert has_ended(settings, after)


def test_a_record_that_the_store_refuses_is_set_aside_alone(
    settings: Settings, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One record that the database does not take costs no other its place, in the same message neither."""
    good, bad = started(), replace(started(), attempt=2**31 - 1)
    monkeypatch.setattr("limetask_worker.store_writer._row_of_start", refusing(bad.attempt))
    mixed = encode_started([good, bad])

    async def scenario() -> None:
        async with recording(settings, broker):
            broker.deliver(mixed)
            await until(lambda: "acked 1" in broker.facts)

    run(scenario)
    assert [letter.body for letter in broker.letters] == [mixed.body]
    assert broker.facts[1:] == ["wrote 1", "acked 1"]


OPEN_THE_STORE = """
import asyncio, sys
from limetask_worker.patient_store import PatientStore

async def main():
    store = PatientStore(sys.argv[1])
    await store.open()
    store.close()

asyncio.run(main())
sys.stdout.write(str("alembic" in sys.modules))
"""


def test_a_store_that_is_up_to_date_is_opened_without_alembic(settings: Settings) -> None:
    """Only a recorder that has to make or change the schema takes the time to import what does it."""
    command = [sys.executable, "-c", OPEN_THE_STORE, settings.store_url]
    assert [subprocess.run(command, check=True, capture_output=True).stdout for _ in range(2)] == [b"True", b"False"]


def release_of(start: Started) -> Released:
    return Released(start.task_id, start.attempt, start.worker, start.started_at)


def refusing(attempt: int) -> Callable[..., Any]:
    """Make rows as ever, but one that SQLite refuses for this attempt."""
    from limetask_worker.store_writer import _row_of_start

    def row_of_start(start: Started, *starts: Starts) -> Any:
        row = _row_of_start(start, *starts)
        return row | {"attempt": 2**63} if start.attempt == attempt else row

    return row_of_start


def refused() -> Refused:
    error = ErrorInfo("UnknownTaskError", "unknown task")
    return Refused(replace(FAILURE, task_id=ids.new_task_id("shop"), attempt=1, error=error, started_at=None), False)


def test_a_refused_task_fails_if_nothing_else_is_known_of_it(settings: Settings, broker: Broker) -> None:
    """Its failure is published, as an event and for the recorder; once it has a row, it has no such end."""
    known, unknown = refused(), refused()
    start = replace(started(), task_id=known.end.task_id)

    async def scenario() -> None:
        async with recording(settings, broker):
            broker.deliver(encode_started([start]), encode_refused(known), encode_refused(unknown))
            await until(lambda: "acked 3" in broker.facts)

    run(scenario)
    assert broker.presumed == [unknown.end]


def test_every_kind_of_record_has_a_reader(settings: Settings, broker: Broker) -> None:
    """What workers tell the recorder is read there; an end is read together with the starts before it."""
    connection = cast(Connection, broker)
    recorder = Recorder(settings, NAME, connection, connection)
    assert recorder._readers.keys() | {MessageKind.COMPLETION} == RECORD_KINDS
    recorder.close()


def late_start_on(start: Started, worker: str) -> Started:
    return replace(start, worker=worker, acks_late=True, started_at=start.started_at + timedelta(seconds=1))


async def verdict_on(broker: Broker, start: Started) -> Verdict:
    """The answer to a claim to this start, of a task whose worker has lost its message."""
    before = len(broker.verdicts)
    broker.deliver(claim_of(start, may_run_again=True))
    await until(lambda: len(broker.verdicts) > before)
    return broker.verdicts[-1]


def lost(worker: str) -> Envelope:
    return encode_worker_lost(WorkerLost(worker, "killed", NOW, begun=None))


def alive(worker: str, *task_ids: str) -> Envelope:
    return encode_alive(Alive(NOW, {worker: task_ids}))


@pytest.fixture
def no_waiting_for_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim to what another worker has started is decided at once."""
    monkeypatch.setattr(verdicts_module, "_NEWS_SECONDS", 0.001)


@pytest.mark.usefixtures("no_waiting_for_news")
def test_a_late_task_has_not_begun_too_often_while_its_last_worker_lives(settings: Settings, broker: Broker) -> None:
    """Its message comes again if only a connection was lost: the body may end well. It is looked at again later."""
    first = replace(started(), acks_late=True)
    second = late_start_on(first, "host:1:b")

    async def scenario() -> None:
        async with recording(replace(settings, max_deliveries=1), broker):
            broker.deliver(encode_started([first]))
            put_off = await verdict_on(broker, second)
            assert (put_off.decision, put_off.worker) == (Decision.STARTED_ELSEWHERE, "host:1:a")
            broker.deliver(lost("host:1:a"))
            given_up = await verdict_on(broker, late_start_on(second, "host:1:c"))
            assert given_up.decision is Decision.BEGUN_TOO_OFTEN

    run(scenario)


@pytest.mark.usefixtures("no_waiting_for_news")
def test_a_late_task_has_not_begun_too_often_while_anybody_has_it_in_hand(settings: Settings, broker: Broker) -> None:
    """An earlier run of it may go on, in a worker that has lost its connection, when the last one is dead."""
    first = replace(started(), acks_late=True)

    async def scenario() -> None:
        async with recording(replace(settings, max_deliveries=1), broker):
            broker.deliver(encode_started([first]))
            broker.deliver(lost(first.worker))
            broker.deliver(alive("host:2:a", first.task_id))
            put_off = await verdict_on(broker, late_start_on(first, "host:1:b"))
            assert (put_off.decision, put_off.worker) == (Decision.STARTED_ELSEWHERE, "host:2:a")
            broker.deliver(alive("host:2:a"))
            given_up = await verdict_on(broker, late_start_on(first, "host:1:c"))
            assert given_up.decision is Decision.BEGUN_TOO_OFTEN

    run(scenario)
