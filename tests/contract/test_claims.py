"""Who may run a task that was delivered before, and how often, on every database that a store can be kept in."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from limetask.message import Claim, Decision, Refused, Released, Started
from limetask.status import ErrorInfo, Status
from limetask.store import Store
from limetask_worker.store_writer import StoreWriter
from tests.contract.records import LOST, STARTED, ended, failed, new_id, refused, started, status_of


def claim_of(start: Started, *, may_run_again: bool) -> Claim:
    return Claim(start, may_run_again, "limetask.reply.abc")


def decided(writer: StoreWriter, claim: Claim, max_begun: int = 5, *, take_over: bool = True) -> tuple[Decision, int]:
    """Decide a claim, and return the decision and how often the body has begun then."""
    verdict = writer.claim(claim, max_begun, take_over=take_over)
    assert (verdict.task_id, verdict.attempt) == (claim.start.task_id, claim.start.attempt)
    return verdict.decision, verdict.begun


def test_whoever_claims_first_runs_an_early_task(store: Store, writer: StoreWriter) -> None:
    """Of two workers that hold the same early task the first may run it, however often they ask."""
    task_id = new_id()
    first, second = (claim_of(started(task_id, worker=worker), may_run_again=False) for worker in ("a", "b"))
    for claim, decision in [(first, Decision.RUN), (second, Decision.STARTED_ELSEWHERE)] * 2:
        assert decided(writer, claim) == (decision, 1)
    stored = store.read(task_id, "shop")
    assert stored is not None
    assert (stored.status, stored.worker) == (Status.STARTED, "a")


def test_a_recorded_start_wins_over_a_later_claim(writer: StoreWriter) -> None:
    """A start that was only recorded counts as much as a claim, for the worker that recorded it and against others."""
    own = started(new_id(), worker="a")
    writer.merge([own])
    assert decided(writer, claim_of(own, may_run_again=False))[0] is Decision.RUN
    other = claim_of(replace(own, worker="b"), may_run_again=False)
    assert decided(writer, other)[0] is Decision.STARTED_ELSEWHERE


def test_a_late_task_may_begin_only_so_often(store: Store, writer: StoreWriter) -> None:
    """Each claim of a late task that was lost counts as a begin; to ask twice counts once."""
    task_id = new_id()
    starts = [
        started(task_id, worker=f"worker {number}", acks_late=True, started_at=STARTED + timedelta(seconds=number))
        for number in range(4)
    ]
    for number, start in enumerate(starts[:3], 1):
        for _ in range(2):
            assert decided(writer, claim_of(start, may_run_again=True), max_begun=3) == (Decision.RUN, number)
    assert decided(writer, claim_of(starts[3], may_run_again=True), max_begun=3) == (Decision.BEGUN_TOO_OFTEN, 3)
    stored = store.read(task_id, "shop")
    assert stored is not None
    assert stored.worker == "worker 2"


def test_a_late_task_is_not_taken_over_before_its_time(writer: StoreWriter) -> None:
    """Until it is known whether its worker is lost, the verdict names that worker, and nothing is counted."""
    start = started(new_id(), worker="a", acks_late=True)
    writer.merge([start])
    claim = claim_of(replace(start, worker="b"), may_run_again=True)
    verdict = writer.claim(claim, 5, take_over=False)
    assert (verdict.decision, verdict.worker) == (Decision.STARTED_ELSEWHERE, "a")
    assert decided(writer, claim) == (Decision.RUN, 2)


@pytest.mark.parametrize("seed", range(5))
def test_claims_of_one_batch_are_decided_like_those_of_several(writer: StoreWriter, seed: int) -> None:
    """Several claims at once, some of them of the same task, get the verdicts that they would have got one by one."""
    chance = random.Random(seed)
    together, apart = ([new_id() for _ in range(20)] for _ in range(2))
    known = [chance.randrange(20) for _ in range(10)]
    asked = [(chance.randrange(20), random_start(chance)) for _ in range(200)]
    for task_ids in (together, apart):
        writer.merge([started(task_ids[one], worker="worker 0", acks_late=True) for one in known[:5]])
        writer.merge([ended(task_ids[one]) for one in known[5:]])
    verdicts = writer.claim_all([claim_about(together[one], start) for one, start in asked], 2, take_over=True)
    expected = [writer.claim(claim_about(apart[one], start), 2, take_over=True) for one, start in asked]
    assert [replace(one, task_id="") for one in verdicts] == [replace(one, task_id="") for one in expected]
    assert {verdict.decision for verdict in verdicts} == set(Decision) - {Decision.REFUSED}  # that is not the store's
    last = [writer.claim(claim_about(one, started("")), 2, take_over=False) for one in (*together, *apart)]
    assert [replace(one, task_id="") for one in last[:20]] == [replace(one, task_id="") for one in last[20:]]


def random_start(chance: random.Random) -> Started:
    return started(
        "", worker=f"worker {chance.randrange(4)}", acks_late=chance.random() < 0.8, attempt=chance.choice([1, 1, 1, 2])
    )


def claim_about(task_id: str, start: Started) -> Claim:
    return claim_of(replace(start, task_id=task_id), may_run_again=True)


def test_more_claims_than_a_statement_takes_parameters(writer: StoreWriter) -> None:
    """However many claims come at once, all are decided."""
    starts = [started(new_id()) for _ in range(1100)]
    writer.merge([ended(start.task_id) for start in starts])
    verdicts = writer.claim_all([claim_of(start, may_run_again=False) for start in starts], 5, take_over=False)
    assert {verdict.decision for verdict in verdicts} == {Decision.ENDED}
    assert len(verdicts) == 1100


def released(start: Started) -> Released:
    return Released(start.task_id, start.attempt, start.worker, start.started_at)


def test_a_released_start_never_was(store: Store, writer: StoreWriter) -> None:
    """What a worker had started and not begun is pending again, and whoever gets it may run it, for the first time."""
    early, late = started(new_id(), worker="a"), started(new_id(), worker="a", acks_late=True)
    writer.merge([early, late])
    for _ in range(2):
        writer.release([released(early), released(late)])
        assert [store.read(start.task_id, "shop") for start in (early, late)] == [None, None]
    for start in (early, late):
        assert decided(writer, claim_of(replace(start, worker="b"), may_run_again=start.acks_late)) == (Decision.RUN, 1)


def test_a_start_that_was_taken_back_is_never_recorded_again(store: Store, writer: StoreWriter) -> None:
    """The record of it or the claim to it comes once more, as when a recorder died, stood still or was cut off."""
    own = started(new_id(), worker="a")
    later = replace(own, started_at=own.started_at + timedelta(seconds=1))
    writer.claim(claim_of(own, may_run_again=False), 5, take_over=False)
    writer.release([released(own)])
    for _ in range(2):
        writer.merge([own])
        assert decided(writer, claim_of(own, may_run_again=True)) == (Decision.STARTED_ELSEWHERE, 0)
        assert (store.read(own.task_id, "shop"), writer.running_under("a")) == (None, [])
    assert decided(writer, claim_of(later, may_run_again=False)) == (Decision.RUN, 1)
    assert writer.running_under("a") == [later]
    writer.merge([ended(own.task_id, worker="a")])
    assert store.read(own.task_id, "shop") == status_of(ended(own.task_id, worker="a"))


def test_a_start_that_is_taken_back_before_it_is_recorded_never_is(store: Store, writer: StoreWriter) -> None:
    """Of what two recorders are told at once, the release can be the first to be written."""
    own = started(new_id(), worker="a", acks_late=True)
    assert writer.release([released(own), released(own)]) == set()
    writer.merge([own])
    assert store.read(own.task_id, "shop") is None


def test_a_start_that_was_taken_back_takes_no_task_from_others(store: Store, writer: StoreWriter) -> None:
    """Not even a late task, from the worker that runs it: nobody would run it, in nobody's hand."""
    own = started(new_id(), worker="a", acks_late=True)
    other = replace(own, worker="b")
    writer.release([released(own)])
    for record in ([own, other], [other, own], [own, other, own]):
        writer.merge(record)
        assert writer.running_under("b") == [other]
    assert decided(writer, claim_of(own, may_run_again=True))[0] is Decision.STARTED_ELSEWHERE
    stored = store.read(own.task_id, "shop")
    assert stored is not None
    assert (stored.status, stored.worker) == (Status.STARTED, "b")


def test_a_worker_that_has_ended_is_granted_nothing(store: Store, writer: StoreWriter) -> None:
    """By whichever recorder, that of the news or one that was deposed; what it had before, and others have, stays."""
    before, after, others = (started(new_id(), worker=worker) for worker in "aab")
    assert decided(writer, claim_of(before, may_run_again=False)) == (Decision.RUN, 1)
    for _ in range(2):
        writer.note_ended("a")
    assert decided(writer, claim_of(after, may_run_again=False)) == (Decision.STARTED_ELSEWHERE, 0)
    assert decided(writer, claim_of(others, may_run_again=False)) == (Decision.RUN, 1)
    assert writer.running_under("a") == [before]
    assert store.read(after.task_id, "shop") is None


def test_that_a_worker_has_ended_is_forgotten_in_time(writer: StoreWriter) -> None:
    """Its names never come again, and its claims not so late."""
    writer.note_ended("a")
    assert writer.prune_taken_back(datetime.now(UTC) + timedelta(seconds=1)) == 1


@pytest.mark.parametrize("seed", range(10))
def test_what_is_taken_back_is_so_in_whatever_order_it_is_told(writer: StoreWriter, seed: int) -> None:
    """Starts and releases, each told more than once, in any order and in any batches: what is left is the same."""
    chance = random.Random(seed)
    starts = [started(new_id(), worker=chance.choice("ab")) for _ in range(30)]
    given_up = chance.sample(starts, 15)
    told: list[Started | Released] = [*starts, *starts, *(released(one) for one in given_up)]
    chance.shuffle(told)
    while told:
        batch = [told.pop() for _ in range(min(len(told), chance.randint(1, 10)))]
        writer.release([one for one in batch if isinstance(one, Released)])
        writer.merge([one for one in batch if isinstance(one, Started)])
    left = [*writer.running_under("a"), *writer.running_under("b")]
    assert {one.task_id for one in left} == {one.task_id for one in starts} - {one.task_id for one in given_up}


def test_what_was_taken_back_is_forgotten_in_small_batches(writer: StoreWriter) -> None:
    """At most `limit` starts go at a time, by the time at which they were told."""
    begun = datetime.now(UTC)
    writer.release([released(started(new_id())) for _ in range(5)])
    assert writer.prune_taken_back(begun) == 0
    told = datetime.now(UTC) + timedelta(microseconds=1)
    assert [writer.prune_taken_back(told, limit=2) for _ in range(4)] == [2, 2, 1, 0]


def test_a_late_task_that_began_before_keeps_its_count(writer: StoreWriter) -> None:
    """Only the start that did not come to a begin is taken back, once, however often it is told."""
    first = started(new_id(), worker="a", acks_late=True)
    writer.merge([first])
    second = replace(first, worker="b")
    assert decided(writer, claim_of(second, may_run_again=True)) == (Decision.RUN, 2)
    for _ in range(2):
        writer.release([released(second)])
    assert decided(writer, claim_of(replace(first, worker="c"), may_run_again=True)) == (Decision.RUN, 2)


@pytest.mark.parametrize("seed", range(5))
def test_starts_that_come_to_nothing_do_not_count_in_whatever_order_that_is_told(
    writer: StoreWriter, seed: int
) -> None:
    """Workers that lose their connections in turn use up no begin, however late, often and mixed they tell of it."""
    chance = random.Random(seed)
    task_id, unreleased = new_id(), list[Started]()
    for number in range(50):
        moment = STARTED + timedelta(seconds=number)
        start = started(task_id, worker=f"worker {number % 3}", acks_late=True, started_at=moment)
        assert decided(writer, claim_of(start, may_run_again=True)) == (Decision.RUN, len(unreleased) + 1)
        unreleased.append(start)
        if len(unreleased) > 4 or chance.random() < 0.5:
            told = chance.sample(unreleased, chance.randint(1, len(unreleased)))
            writer.release([released(one) for one in (*told, *told[:1])])
            writer.release([released(one) for one in told])
            unreleased = [one for one in unreleased if one not in told]


def test_a_task_is_pending_again_when_its_last_start_is_taken_back(store: Store, writer: StoreWriter) -> None:
    """It counts as started until all that started it have told that it did not begin there."""
    first = started(new_id(), worker="a", acks_late=True)
    second = replace(first, worker="b")
    writer.merge([first])
    assert decided(writer, claim_of(second, may_run_again=True)) == (Decision.RUN, 2)
    for start, status in ((second, Status.STARTED), (first, None)):
        writer.release([released(start)])
        stored = store.read(first.task_id, "shop")
        assert (stored and stored.status) == status


def test_a_worker_that_asks_again_after_another_counts_once(writer: StoreWriter) -> None:
    """The same start, claimed before and after somebody else's, is one begin."""
    first = started(new_id(), worker="a", acks_late=True)
    second = replace(first, worker="b")
    asked = [decided(writer, claim_of(start, may_run_again=True)) for start in (first, second, first, second)]
    assert asked == [(Decision.RUN, begun) for begun in (1, 2, 2, 2)]


def test_the_next_attempt_begins_to_count_anew(writer: StoreWriter) -> None:
    """What an attempt has used up is not the next one's, and what is taken back of it is not either."""
    first = started(new_id(), worker="a", acks_late=True)
    second = replace(first, worker="b")
    for start in (first, second):
        decided(writer, claim_of(start, may_run_again=True))
    again = replace(first, attempt=2)
    writer.merge([again])
    writer.release([released(first)])
    assert decided(writer, claim_of(replace(again, worker="b"), may_run_again=True)) == (Decision.RUN, 2)


def test_only_what_a_worker_has_in_hand_is_released(store: Store, writer: StoreWriter) -> None:
    """Neither an end, nor the start of another worker or attempt, is taken back."""
    over, others, again = (started(new_id(), worker=worker) for worker in ("a", "b", "a"))
    writer.merge([over, others, replace(again, attempt=2)])
    writer.merge([ended(over.task_id, worker="a")])
    writer.release([released(over), released(replace(others, worker="a")), released(again)])
    statuses = [store.read(start.task_id, "shop") for start in (over, others, again)]
    assert [status and status.status for status in statuses] == [Status.SUCCESS, Status.STARTED, Status.STARTED]


@pytest.mark.parametrize("end", [ended, failed])
def test_an_ended_attempt_does_not_run_again(store: Store, writer: StoreWriter, end: Any) -> None:
    """What its body has ended is not run again, as no attempt: nothing that limetask does sends another one."""
    task_id = new_id()
    writer.merge([end(task_id)])
    again = started(task_id, acks_late=True, worker="b")
    assert decided(writer, claim_of(again, may_run_again=True))[0] is Decision.ENDED
    for attempt in (2, 3, 2**31 - 1):
        claim = claim_of(replace(again, attempt=attempt), may_run_again=True)
        assert decided(writer, claim)[0] is Decision.UNEXPECTED
    assert store.read(task_id, "shop") == status_of(end(task_id))


@pytest.mark.parametrize(
    "row",
    [
        lambda task_id: failed(task_id, error=LOST),
        lambda task_id: failed(task_id, error=ErrorInfo("UnknownApplicationError", "no such application")),
        lambda task_id: failed(task_id, error=ErrorInfo("BegunTooOftenError", "it was started 5 times")),
        lambda task_id: refused(task_id, error=ErrorInfo("UnknownTaskError", "unknown task")),
        lambda task_id: started(task_id, acks_late=True),
    ],
)
def test_only_the_next_attempt_may_follow(store: Store, writer: StoreWriter, row: Any) -> None:
    """A task that was set aside, or whose message was, may be retried: as the next attempt, which counts anew."""
    task_id = new_id()
    writer.merge([row(task_id)])
    again = started(task_id, acks_late=True, worker="b")
    for attempt in (3, 2**31 - 1):
        claim = claim_of(replace(again, attempt=attempt), may_run_again=True)
        assert decided(writer, claim)[0] is Decision.UNEXPECTED
    assert decided(writer, claim_of(replace(again, attempt=2), may_run_again=True)) == (Decision.RUN, 1)
    assert decided(writer, claim_of(again, may_run_again=True))[0] is Decision.ENDED
    stored = store.read(task_id, "shop")
    assert stored is not None
    assert (stored.status, stored.attempt, stored.result, stored.finished_at) == (Status.STARTED, 2, None, None)


def test_what_nothing_is_recorded_of(writer: StoreWriter) -> None:
    """A task is unheard of until this attempt at it, or a later one, is recorded as started or ended."""
    unknown, running, over, again = (started(new_id()) for _ in range(4))
    writer.merge([running, again])
    writer.merge([ended(over.task_id)])
    again = replace(again, attempt=2)
    assert writer.unheard_of([unknown, running, over, again]) == {(unknown.task_id, 1), (again.task_id, 2)}
    assert writer.unheard_of([]) == set()


def test_a_release_tells_what_it_took_back(writer: StoreWriter) -> None:
    """Only a start that was recorded, and is not any more, is told."""
    first, unknown = started(new_id(), worker="a", acks_late=True), started(new_id(), worker="a")
    second = replace(first, worker="b")
    writer.merge([first])
    assert decided(writer, claim_of(second, may_run_again=True))[0] is Decision.RUN
    key = (first.task_id, 1)
    assert writer.release([released(unknown), released(replace(first, worker="c"))]) == set()
    assert writer.release([released(first)]) == {key}
    assert writer.release([released(first)]) == set()
    assert writer.release([released(second)]) == {key}
    assert writer.release([released(second)]) == set()


def test_nothing_overtakes_a_running_early_task(store: Store, writer: StoreWriter) -> None:
    """Its message is acked, so no dead letter of it can be retried: whoever sends another attempt made it up."""
    start = started(new_id())
    writer.merge([start])
    claim = claim_of(replace(start, attempt=2, worker="b"), may_run_again=True)
    assert decided(writer, claim)[0] is Decision.UNEXPECTED
    assert store.read(start.task_id, "shop") == status_of(start)


def test_an_attempt_without_a_row_is_one_that_may_have_been_retried(writer: StoreWriter) -> None:
    """A dead letter may be older than its task's row, and may have been retried before: not two billion times."""
    start = started(new_id())
    assert decided(writer, claim_of(replace(start, attempt=2**31 - 1), may_run_again=False))[0] is Decision.UNEXPECTED
    assert decided(writer, claim_of(replace(start, attempt=3), may_run_again=False)) == (Decision.RUN, 1)


@pytest.mark.parametrize("attempt", [1, 7, 2**31 - 1])
def test_a_refused_message_gives_way_to_whatever_is_known(store: Store, writer: StoreWriter, attempt: int) -> None:
    """Whoever may send tasks can name any in a message that is refused: it neither hides nor replaces a real record."""
    for record in (started, ended, failed, lambda task_id: failed(task_id, error=LOST)):
        for refused_first in (True, False):
            for together in (True, False):
                task_id = new_id()
                records = [refused(task_id, attempt=attempt), record(task_id)]
                ordered = records if refused_first else records[::-1]
                for batch in [ordered] if together else [[one] for one in ordered]:
                    writer.merge(batch)
                assert store.read(task_id, "shop") == status_of(record(task_id))


def test_a_refused_message_does_not_keep_a_task_from_running(writer: StoreWriter) -> None:
    """The task's own message may be claimed after it, whatever attempt the refused one has claimed to be."""
    task_id = new_id()
    writer.merge([refused(task_id, attempt=9)])
    assert decided(writer, claim_of(started(task_id), may_run_again=False)) == (Decision.RUN, 1)


def told(task_id: str, attempt: int = 1, *, was_delivered_before: bool = False) -> Refused:
    return Refused(refused(task_id, attempt=attempt), was_delivered_before)


def test_a_refused_message_ends_a_task_of_which_nothing_is_known(writer: StoreWriter) -> None:
    """Without a row, or as the retry of a message that was refused before."""
    task_id = new_id()
    assert writer.end_of_refused(told(task_id)) == refused(task_id)
    assert writer.end_of_refused(told(task_id, attempt=2**31 - 1)) is None
    writer.merge([refused(task_id)])
    ends = [writer.end_of_refused(told(task_id, attempt)) for attempt in (1, 2, 3)]
    assert ends == [None, refused(task_id, attempt=2), None]
    for record in (started, ended, failed):
        known = new_id()
        writer.merge([record(known)])
        assert [writer.end_of_refused(told(known, attempt)) for attempt in (1, 2, 3)] == [None] * 3


def test_a_lost_late_task_ends_if_it_is_refused(store: Store, writer: StoreWriter) -> None:
    """The broker delivers it again, to a worker that does not have it, and nobody else would tell of its end."""
    late, early = started(new_id(), acks_late=True), started(new_id())
    writer.merge([late, early])
    for was_delivered_before in (True, False):
        assert writer.end_of_refused(told(early.task_id, was_delivered_before=was_delivered_before)) is None
    assert writer.end_of_refused(told(late.task_id)) is None
    assert writer.end_of_refused(told(late.task_id, attempt=2, was_delivered_before=True)) is None
    end = writer.end_of_refused(told(late.task_id, was_delivered_before=True))
    assert end is not None
    writer.merge([end])
    assert store.read(late.task_id, "shop") == status_of(replace(refused(late.task_id), started_at=late.started_at))
    again = claim_of(replace(late, attempt=2, worker="b"), may_run_again=True)
    assert decided(writer, again) == (Decision.RUN, 1)
