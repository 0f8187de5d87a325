"""What the status store promises, on every database that it can be kept in."""

from __future__ import annotations

import random
import sys
import traceback
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import permutations
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import inspect, make_url, text

from limetask import ids
from limetask.errors import StoreError, StoreUrlError
from limetask.message import Claim, HandlerBindings, HandlerGone, Released
from limetask.settings import default_store_path
from limetask.status import ErrorInfo
from limetask.store import Store, StoreMark
from limetask.store_tables import task_status
from limetask_worker import schema
from limetask_worker.store_writer import RecordRejectedError, StoreWriter
from tests.contract.records import (
    FINISHED,
    LOST,
    SENT,
    STARTED,
    Record,
    ended,
    engine_of,
    execute,
    failed,
    new_id,
    random_text,
    started,
    status_of,
    winner,
)

# Round trips


@pytest.mark.parametrize("make", [started, ended, failed])
def test_every_field_is_read_back(store: Store, writer: StoreWriter, make: Any) -> None:
    """What is read equals, field by field, what was recorded."""
    record = make(new_id())
    writer.merge([record])
    assert store.read(record.task_id, "shop") == status_of(record)


def test_an_end_may_lack_a_start(store: Store, writer: StoreWriter) -> None:
    """A task that ended without ever being started has neither a worker nor a start."""
    record = failed(new_id(), worker=None, started_at=None)
    writer.merge([record])
    assert store.read(record.task_id, "shop") == status_of(record)


@pytest.mark.parametrize(
    "result",
    [None, False, 0, "", [], {}, 2**63 - 1, -0.1, "\x00 and \u2028", "🍋 ünï", {"a": [1, None, {"b": "\x00"}]}],
)
def test_every_json_result_is_read_back(store: Store, writer: StoreWriter, result: Any) -> None:
    """A result comes back as it was, whatever JSON it is."""
    record = ended(new_id(), result=result)
    writer.merge([record])
    assert store.read(record.task_id, "shop") == status_of(record)


def test_a_result_of_one_mebibyte_is_read_back(store: Store, writer: StoreWriter) -> None:
    """The largest result that a task may have fits."""
    record = ended(new_id(), result=random.Random(1).randbytes(512 * 1024).hex())
    writer.merge([record])
    assert store.read(record.task_id, "shop") == status_of(record)


def test_an_error_keeps_characters_that_databases_refuse(store: Store, writer: StoreWriter) -> None:
    """NUL, line separators and emoji in an error survive."""
    record = failed(new_id(), error=ErrorInfo("pkg.🍋Error", "a\x00b", "Traceback\n\u2028\x00\n"))
    writer.merge([record])
    assert store.read(record.task_id, "shop") == status_of(record)


def test_lone_surrogates_become_question_marks(store: Store, writer: StoreWriter) -> None:
    """Text that is not Unicode is recorded as nearly as UTF-8 allows."""
    task_id = new_id()
    writer.merge([failed(task_id, result=["x\udc80", 1], error=ErrorInfo("E", "\ud800!", "\x00\udfff"))])
    status = store.read(task_id, "shop")
    assert status is not None
    assert (status.result, status.error) == (["x?", 1], ErrorInfo("E", "?!", "\x00?"))


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        datetime(2026, 7, 1, 2, 30, 0, 999999, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    ],
)
def test_times_are_exact_and_in_utc(store: Store, writer: StoreWriter, moment: datetime) -> None:
    """A time is exact to the microsecond, and comes back in UTC whatever its zone and the session's were."""
    task_id = new_id()
    writer.merge([ended(task_id, sent_at=moment, started_at=moment, finished_at=moment)])
    status = store.read(task_id, "shop")
    assert status is not None
    assert status.sent_at == status.started_at == status.finished_at == moment
    assert status.sent_at is not None
    assert status.sent_at.tzinfo is UTC


# Who sees what


def test_only_the_same_application_reads_a_status(store: Store, writer: StoreWriter) -> None:
    """Another application's name, however similar, reads nothing."""
    task_id = new_id()
    writer.merge([ended(task_id)])
    assert [store.read(task_id, app) for app in ("Shop", "shop ", "sho", "", "%", "shop\x00", "\ud800")] == [None] * 7


@pytest.mark.parametrize("task_id", ["", "1", "x" * 36, "'; --", "\x00", "\ud800"])
def test_what_is_no_id_has_no_status(store: Store, writer: StoreWriter, task_id: str) -> None:
    """A malformed id reads as nothing, not as an error."""
    writer.merge([ended(new_id())])
    assert store.read(task_id, "shop") is None


# Merging


def sequences(task_id: str) -> Iterator[tuple[Record, ...]]:
    """Every order of every choice of the records that two attempts at a task can leave."""
    records = [
        started(task_id, worker="host:1:a", acks_late=True),
        started(task_id, worker="host:2:b", acks_late=True, started_at=STARTED + timedelta(microseconds=1)),
        failed(task_id, error=LOST),
        ended(task_id, worker="host:2:b"),
        started(task_id, attempt=2),
        failed(task_id, attempt=2),
    ]
    for size in range(1, len(records) + 1):
        yield from permutations(records, size)


def sequences_of_many_tasks() -> list[tuple[Record, ...]]:
    return [
        tuple(replace(record, task_id=task_id) for record in sequence)
        for sequence in sequences("any")
        for task_id in [new_id()]
    ]


def test_records_in_any_order_end_in_the_same_row(store: Store, writer: StoreWriter) -> None:
    """Whichever records have arrived, one transaction each, in whatever order, the row is the most advanced one."""
    tasks = sequences_of_many_tasks()
    for turn in range(6):
        writer.merge([sequence[turn] for sequence in tasks if turn < len(sequence)])
    assert [store.read(task[0].task_id, "shop") for task in tasks] == [status_of(winner(task)) for task in tasks]


def test_records_of_one_batch_merge_like_those_of_several(store: Store, writer: StoreWriter) -> None:
    """A batch that holds several records of a task leaves the row that they would have left one by one."""
    tasks = sequences_of_many_tasks()
    writer.merge([record for sequence in tasks for record in sequence])
    assert [store.read(task[0].task_id, "shop") for task in tasks] == [status_of(winner(task)) for task in tasks]


@pytest.mark.parametrize("seed", range(5))
def test_batches_may_be_cut_anywhere(store: Store, writer: StoreWriter, seed: int) -> None:
    """Random records, equal ends among them, in random batches, with repetitions, leave what the rule says."""
    chance = random.Random(seed)
    records = random_records(chance, [new_id() for _ in range(10)], 400)
    rest = list(records)
    while rest:
        size = chance.randint(1, 40)
        writer.merge(rest[:size])
        rest = rest[chance.randint(size // 2, size) or 1 :]
    for task_id in {record.task_id for record in records}:
        assert store.read(task_id, "shop") == status_of(winner([r for r in records if r.task_id == task_id]))


def random_records(chance: random.Random, task_ids: list[str], count: int) -> list[Record]:
    return [random_record(chance, chance.choice(task_ids), number) for number in range(count)]


def random_record(chance: random.Random, task_id: str, number: int) -> Record:
    attempt, moment = chance.randint(1, 4), STARTED + timedelta(microseconds=chance.randint(0, 9))
    choices: list[Record] = [
        started(task_id, attempt=attempt, worker=f"host:{number}", started_at=moment),
        ended(task_id, attempt=attempt, result=number, started_at=moment),
        failed(task_id, attempt=attempt, result=number, started_at=moment, error=LOST),
    ]
    return chance.choice(choices)


def test_the_first_of_two_equal_ends_stays(store: Store, writer: StoreWriter) -> None:
    """A second end of the same attempt changes nothing."""
    task_id = new_id()
    writer.merge([ended(task_id, result="first")])
    writer.merge([ended(task_id, result="second"), failed(task_id, result="third")])
    status = store.read(task_id, "shop")
    assert status is not None
    assert status.result == "first"


def test_a_repeated_record_changes_nothing(store: Store, writer: StoreWriter) -> None:
    """The broker may deliver a record twice."""
    record = failed(new_id())
    for _ in range(3):
        writer.merge([record, record])
    assert store.read(record.task_id, "shop") == status_of(record)


def test_large_results_share_a_transaction(store: Store, writer: StoreWriter) -> None:
    """What a batch may hold at most, and all of it to be escaped, is written as ever."""
    records = [ended(new_id(), result='"\\\x00' * (1024 * 1024 // 8)) for _ in range(16)]
    writer.merge(records)
    assert [store.read(record.task_id, "shop") for record in records] == [status_of(record) for record in records]


@pytest.mark.parametrize("moment", [SENT, datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, tzinfo=UTC)])
def test_rows_are_kept_as_sqlalchemy_keeps_them(migrated_url: str, writer: StoreWriter, moment: datetime) -> None:
    """The writer passes SQLAlchemy's types by, and what it writes is the same, to the last character."""
    ours, theirs = sorted(new_id() for _ in range(2))
    changes: dict[str, Any] = {"sent_at": moment, "started_at": moment, "finished_at": moment}
    writer.merge([started(ours, acks_late=True), ended(ours, **changes)])
    with engine_of(migrated_url) as engine, engine.begin() as connection:
        [row] = connection.execute(task_status.select()).mappings()
        connection.execute(task_status.insert(), {**row, "task_id": theirs})
        rows = connection.execute(text("SELECT * FROM limetask_task_status ORDER BY task_id")).all()
    assert len(str(rows[0].task_id)) == len(str(rows[1].task_id))
    assert rows[0][1:] == rows[1][1:]


def test_an_end_keeps_the_way_of_acking_that_its_start_told(migrated_url: str, writer: StoreWriter) -> None:
    """A completion does not know when its task was acked, so it leaves that alone, in one batch and in two."""
    together, apart = new_id(), new_id()
    writer.merge([started(together, acks_late=True), ended(together), started(apart, acks_late=True)])
    writer.merge([ended(apart)])
    with engine_of(migrated_url) as engine, engine.connect() as connection:
        stored = connection.execute(text("SELECT acks_late FROM limetask_task_status")).scalars().all()
    assert [bool(value) for value in stored] == [True, True]


def test_no_records_are_no_work(writer: StoreWriter) -> None:
    """An empty batch is no error."""
    writer.merge([])


# Refusals


@pytest.mark.parametrize(
    "changes",
    [{"app": "\ud800"}, {"sent_at": datetime(2026, 1, 1)}, {"result": object()}, {"attempt": 2**63}],
)
def test_a_refused_record_is_told_apart(store: Store, writer: StoreWriter, changes: dict[str, Any]) -> None:
    """A record that the database can never take raises RecordRejectedError, and none of its batch is written."""
    good, bad = ended(new_id()), ended(new_id(), **changes)
    with pytest.raises(RecordRejectedError):
        writer.merge([good, bad])
    assert store.read(good.task_id, "shop") is None
    writer.merge([good])
    assert store.read(good.task_id, "shop") == status_of(good)


def test_a_name_with_nul_is_refused_by_postgresql(postgresql_url: str) -> None:
    """PostgreSQL has no NUL in text: such a name is a refusal of the record, not a failure of the store."""
    schema.upgrade(postgresql_url)
    with closing(StoreWriter(postgresql_url)) as writer, pytest.raises(RecordRejectedError):
        writer.merge([ended(new_id(), app="a\x00b")])


USES_OF_ODD_VALUES: dict[str, Callable[[StoreWriter], Any]] = {
    "an id that is none": lambda writer: writer.release([Released("x", 1, "host:12:a", STARTED)]),
    "an ended worker": lambda writer: writer.note_ended("a\x00b"),
    "a released worker": lambda writer: writer.release([Released("a\x00b", 1, "host:12:a", STARTED)]),
    "a lost worker": lambda writer: writer.running_under("a\x00b"),
    "a claim": lambda writer: writer.claim(Claim(started(new_id(), app="a\x00b"), False, ""), 5, take_over=False),
    "too long for an index": lambda writer: writer.merge([started(new_id(), worker=random_text(20_000))]),
    "a handler": lambda writer: writer.merge_handlers([HandlerBindings("a\x00b", [], STARTED)], STARTED),
    "bindings": lambda writer: writer.forget_bindings("a\x00b", []),
    "a handler that is gone": lambda writer: writer.delete_handler(HandlerGone("a\x00b", STARTED)),
}


@pytest.mark.parametrize("use", USES_OF_ODD_VALUES.values(), ids=USES_OF_ODD_VALUES.keys())
def test_what_postgresql_refuses_is_no_failure_of_the_store(
    postgresql_url: str, use: Callable[[StoreWriter], Any]
) -> None:
    """Whatever a method was given that the database cannot take: it is refused, and must not be tried again."""
    schema.upgrade(postgresql_url)
    with closing(StoreWriter(postgresql_url)) as writer:
        with pytest.raises(RecordRejectedError):
            use(writer)
        writer.merge([ended(new_id())])


def test_writing_without_a_schema_is_no_refusal(store_url: str) -> None:
    """A store that is not there now is a StoreError to try again after, not a fault of the record."""
    with closing(StoreWriter(store_url)) as writer, pytest.raises(StoreError) as caught:
        writer.merge([ended(new_id())])
    assert not isinstance(caught.value, RecordRejectedError)


# What a lost worker was running


def test_running_under_returns_what_a_worker_has_not_ended(writer: StoreWriter) -> None:
    """Only tasks of exactly that worker, started and not ended, are returned, as they were recorded."""
    running = [started(new_id(), worker="lost"), started(new_id(), worker="lost", attempt=2, acks_late=True)]
    over = started(new_id(), worker="lost")
    writer.merge([*running, over, started(new_id(), worker="lost2")])
    writer.merge([ended(over.task_id, worker="lost")])
    assert sorted(writer.running_under("lost"), key=lambda record: record.attempt) == running


# Pruning


def test_pruning_deletes_the_oldest_in_small_batches(store: Store, writer: StoreWriter) -> None:
    """At most `limit` tasks go at a time, the oldest first, until none that ended before the moment is left."""
    old = [new_id(SENT + timedelta(seconds=number)) for number in range(5)]
    writer.merge([ended(task_id) for task_id in reversed(old)])
    before = FINISHED + timedelta(microseconds=1)
    assert writer.prune(before, limit=2) == 2
    assert [store.read(task_id, "shop") is None for task_id in old] == [True, True, False, False, False]
    assert [writer.prune(before, limit=2) for _ in range(3)] == [2, 1, 0]


def test_pruning_spares_what_is_running_or_ended_later(store: Store, writer: StoreWriter) -> None:
    """A task goes by the time of its end: an old one that runs still, or ended just now, stays."""
    running, just_ended, later = new_id(), new_id(), new_id(FINISHED)
    writer.merge([started(running), ended(just_ended), ended(later, finished_at=FINISHED + timedelta(hours=1))])
    assert writer.prune(FINISHED) == 0
    assert None not in [store.read(task_id, "shop") for task_id in (running, just_ended, later)]


# Together


def test_readers_see_a_task_move_forward_while_it_is_written(store: Store, writer: StoreWriter) -> None:
    """Reads in other threads succeed during writes, and never see a task go back."""
    task_id, last = new_id(), 100
    with ThreadPoolExecutor(4) as threads:
        seen = [threads.submit(positions_until, store, task_id, last) for _ in range(4)]
        for attempt in range(1, last + 1):
            writer.merge([started(task_id, attempt=attempt)])
            writer.merge([ended(task_id, attempt=attempt)])
    assert all(future.result() == sorted(future.result()) for future in seen)


def positions_until(store: Store, task_id: str, last_attempt: int) -> list[tuple[int, bool]]:
    seen: list[tuple[int, bool]] = []
    deadline = monotonic() + 60
    while (last_attempt, True) not in seen[-1:]:
        assert monotonic() < deadline
        status = store.read(task_id, "shop")
        if status is not None:
            seen.append((status.attempt, status.is_completed()))
    return seen


def test_an_open_transaction_does_not_hold_up_readers(store: Store, writer: StoreWriter, migrated_url: str) -> None:
    """While a row is being changed, its last committed state is read at once."""
    record = ended(new_id())
    writer.merge([record])
    with engine_of(migrated_url) as engine, engine.connect() as connection:
        connection.execute(text("UPDATE limetask_task_status SET attempt = 99"))
        begun = monotonic()
        assert store.read(record.task_id, "shop") == status_of(record)
        assert monotonic() - begun < 1


def test_a_status_is_read_after_its_writer_has_gone(migrated_url: str) -> None:
    """Readers need no writer, before it has come and after it has gone."""
    record = ended(new_id())
    with closing(StoreWriter(migrated_url)) as writer:
        writer.merge([record])
    for _ in range(2):
        with closing(Store(migrated_url)) as store:
            assert store.read(record.task_id, "shop") == status_of(record)


def test_a_closed_store_can_be_closed_and_read_again(store: Store, writer: StoreWriter) -> None:
    """Closing is harmless at any time."""
    record = ended(new_id())
    writer.close()
    writer.merge([record])
    store.close()
    store.close()
    assert store.read(record.task_id, "shop") == status_of(record)


# Without a database


def test_a_store_without_a_table_is_empty(store_url: str) -> None:
    """Before the first recorder has run there is no status, which is no error."""
    with closing(Store(store_url)) as store:
        assert store.read(new_id(), "shop") is None


def test_an_empty_file_is_an_empty_store(tmp_path: Path) -> None:
    """A file that SQLite has not written yet holds no status."""
    (tmp_path / "status.db").touch()
    with closing(Store(f"sqlite:///{tmp_path}/status.db")) as store:
        assert store.read(new_id(), "shop") is None


def test_a_reader_creates_nothing(tmp_path: Path) -> None:
    """Reading where there is no SQLite file makes neither the file nor its folder."""
    for path in (tmp_path / "status.db", tmp_path / "folder" / "status.db"):
        with closing(Store(f"sqlite:///{path}")) as store:
            assert store.read(new_id(), "shop") is None
    assert list(tmp_path.iterdir()) == []


def test_a_path_may_have_any_characters(tmp_path: Path) -> None:
    """The first recorder makes the file, whatever characters its folder's name has."""
    (tmp_path / "a b" / "#\u00e9").mkdir(parents=True)
    url, record = f"sqlite:///{tmp_path}/a b/#\u00e9/status.db", ended(new_id())
    schema.upgrade(url)
    with closing(Store(url)) as store, closing(StoreWriter(url)) as writer:
        writer.merge([record])
        assert store.read(record.task_id, "shop") == status_of(record)
    assert (tmp_path / "a b" / "#\u00e9" / "status.db").exists()


def test_every_name_of_sqlite_is_understood(tmp_path: Path) -> None:
    """The scheme of a URL may be written in capital letters, as RFC 3986 has it."""
    for scheme in ("SQLITE", "SQLite+pysqlite"):
        schema.upgrade(f"{scheme}:///{tmp_path}/{scheme}.db")
        with closing(Store(f"sqlite:///{tmp_path}/{scheme}.db")) as store:
            assert store.read(new_id(), "shop") is None


@pytest.mark.parametrize("path", ["/proc/status.db", "{folder}/" + "x" * 300, "{folder}/" + "x" * 250])
def test_a_file_that_cannot_be_made_is_told(tmp_path: Path, path: str) -> None:
    """In a folder that takes no files, or under a name that is too long: to try again would be in vain."""
    if not Path(path).parent.is_dir() and path.startswith("/"):
        pytest.skip("this system has no such folder")
    with pytest.raises(StoreUrlError, match=r"cannot be made: .*Correct LIMETASK_STORE_URL"):
        schema.upgrade(f"sqlite:///{path.format(folder=tmp_path)}")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_leaves_no_room_for_the_files_beside_it_is_told(tmp_path: Path) -> None:
    """The file may be there already: what comes with it has a longer name."""
    path = tmp_path / ("x" * 250)
    path.touch()
    with pytest.raises(StoreUrlError, match=r"cannot be made: .*Correct LIMETASK_STORE_URL"):
        schema.upgrade(f"sqlite:///{path}")
    assert list(tmp_path.iterdir()) == [path]


def test_a_path_that_is_too_long_for_sqlite_is_told(tmp_path: Path) -> None:
    """No part of it is too long for a folder or a file; a path of as many bytes as SQLite takes is a store."""
    folder = tmp_path.joinpath(*["d" * 90] * 4)
    folder.mkdir(parents=True)
    longest = 504 - len(f"{folder}/")
    with pytest.raises(StoreUrlError, match="504 bytes"):
        schema.upgrade(f"sqlite:///{folder}/{'x' * (longest + 1)}")
    assert list(folder.iterdir()) == []
    schema.upgrade(f"sqlite:///{folder}/{'x' * longest}")


def test_a_device_is_not_a_store() -> None:
    """What can be opened and written is not a file for that."""
    with pytest.raises(StoreUrlError, match="is not a database"):
        schema.upgrade("sqlite:////dev/null")


def test_the_folder_of_a_misspelt_path_is_not_made(tmp_path: Path) -> None:
    """A recorder does not begin a store where nobody looks for one."""
    with pytest.raises(StoreUrlError, match=f"there is no folder {tmp_path}/lmietask"):
        schema.upgrade(f"sqlite:///{tmp_path}/lmietask/status.db")
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_the_default_file_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has spelt that one."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.setenv("HOME", str(tmp_path))
    path = default_store_path()
    assert path.is_relative_to(tmp_path)
    schema.upgrade(f"sqlite:///{path}")
    assert path.exists()


def test_what_cannot_become_a_store_is_refused(tmp_path: Path) -> None:
    """A folder, or a file with other content, stays as it is."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes").write_text("not a database, " * 100)
    with pytest.raises(StoreUrlError, match="is a folder"):
        schema.upgrade(f"sqlite:///{tmp_path}/folder")
    with pytest.raises(StoreUrlError, match="is not a database"):
        schema.upgrade(f"sqlite:///{tmp_path}/notes")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "notes"]


def test_a_store_has_a_mark_of_its_own(store_url: str) -> None:
    """Two stores differ in it, one keeps it, and it says which recorder writes there."""
    schema.upgrade(store_url)
    with closing(Store(store_url)) as store, closing(StoreWriter(store_url)) as writer:
        mark = store.mark()
        assert mark is not None
        assert uuid.UUID(mark.id)
        assert (mark.recorder, mark.recorder_seen_at) == (None, None)
        writer.note_recorder("host:1:r", STARTED)
        schema.upgrade(store_url)
        assert store.mark() == writer.mark() == StoreMark(mark.id, "host:1:r", STARTED)


def test_a_reader_doubts_a_store_that_nobody_writes_to(store_url: str) -> None:
    """One that was never written, or that no recorder has written to for minutes, may be the wrong one."""
    with closing(Store(store_url)) as store:
        assert store.doubt() == "nothing was ever recorded there"
        schema.upgrade(store_url)
        assert store.doubt() == "no recorder has said that it writes there"
        with closing(StoreWriter(store_url)) as writer:
            writer.note_recorder("host:1:r", datetime.now(UTC) - timedelta(minutes=7, seconds=1))
            assert store.doubt() == "the last recorder to write there, host:1:r, has not done so for 7 minutes"
            writer.note_recorder("host:1:r", datetime.now(UTC))
        assert store.doubt() is None


def test_a_replaced_file_is_noticed(sqlite_url: str) -> None:
    """After the SQLite file was deleted and made anew, the same Store reads the new one."""
    path, record = Path(sqlite_url.removeprefix("sqlite:///")), ended(new_id())
    schema.upgrade(sqlite_url)
    with closing(Store(sqlite_url)) as store, closing(StoreWriter(sqlite_url)) as writer:
        writer.merge([record])
        assert store.read(record.task_id, "shop") == status_of(record)
        for file in path.parent.iterdir():
            file.unlink()
        assert store.read(record.task_id, "shop") is None
        with pytest.raises(StoreError, match="unable to open"):
            writer.merge([record])
        schema.upgrade(sqlite_url)
        writer.merge([record])
        assert store.read(record.task_id, "shop") == status_of(record)


def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    """A file with other content is told as such, not taken for an empty store."""
    (tmp_path / "status.db").write_text("not a database, " * 100)
    with closing(Store(f"sqlite:///{tmp_path}/status.db")) as store, pytest.raises(StoreError, match="not a database"):
        store.read(new_id(), "shop")


# URLs


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "cannot be read"),
        ("status.db", "cannot be read"),
        ("postgresql://someone:s3cr3t@host:port/statuses", "cannot be read"),
        ("postgresql://someone:pass@s3cr3t:@host/statuses", "cannot be read"),
        ("postgresql://someone:pass@s3cr3t@host/statuses", "an @ is out of place"),
        ("postgresql://someone:pass@s3cr3t/@host/statuses", "an @ is out of place"),
        ("mysql://someone:s3cr3t@host/statuses", "'mysql'"),
        ("postgresql+psycopg2://someone:s3cr3t@host/statuses", "'postgresql.psycopg2'"),
        ("postgresql+asyncpg://someone:s3cr3t@host/statuses", "so write postgresql://"),
        ("postgresql://someone:s3cr3t%ff@host/statuses", "not UTF-8"),
        ("sqlite:////var/%ff.db", "not UTF-8"),
        ("postgresql://someone:s3cr3t%00@host/statuses", "NUL"),
        ("sqlite:////var/a%00.db", "NUL"),
        ("postgresql://someone:s3cr3t@one:5432,two:5432/statuses", "host=h1:5432&host=h2:5432"),
        ("postgresql://someone:s3cr3t@::1:5432/statuses", "in brackets"),
        ("sqlite://status.db", "a path alone"),
        ("sqlite:///status.db?mode=ro", "a path alone"),
        ("sqlite://", "must be a file"),
        ("sqlite:///:memory:", "must be a file"),
        ("sqlite:///file::memory:", "must be a file"),
        ("sqlite:///status.db", "relative"),
        ("sqlite:///~/status.db", "relative"),
        ('"postgresql://someone:s3cr3t@host/statuses"', "in quotes"),
        ("'sqlite:////var/status.db'", "in quotes"),
        ("postgresql://someone:s3cr3t@host/stat\nuses", "cannot be seen"),
        ("sqlite:////var/a\x00b.db", "cannot be seen"),
        ("sqlite:////var/\ud800.db", "cannot be seen"),
    ],
)
@pytest.mark.parametrize("use", [Store, StoreWriter, schema.upgrade])
def test_a_wrong_url_is_explained(use: Callable[[str], object], url: str, problem: str) -> None:
    """A URL that limetask cannot open is told with what is wrong, an example, and no password."""
    with pytest.raises(StoreUrlError, match=problem) as caught:
        use(url)
    assert "postgresql://user:password@host:5432/database" in str(caught.value)
    assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg", "PostgreSQL", "POSTGRESQL+PSYCOPG"])
def test_every_name_of_postgresql_is_understood(postgresql_url: str, scheme: str) -> None:
    """All spellings that hosting providers use reach the same database."""
    url = make_url(postgresql_url).set(drivername=scheme).render_as_string(hide_password=False)
    schema.upgrade(url)
    with closing(Store(url)) as store:
        assert store.read(new_id(), "shop") is None


def test_the_options_of_a_postgresql_url_are_kept(postgresql_url: str) -> None:
    """What the URL says about the session stands beside limetask's own deadlines."""
    execute(postgresql_url, "CREATE SCHEMA elsewhere")
    url = f"{postgresql_url}?options=-csearch_path%3Delsewhere&connect_timeout=7"
    schema.upgrade(url)
    with engine_of(postgresql_url) as engine:
        assert "limetask_task_status" in inspect(engine).get_table_names(schema="elsewhere")


@pytest.mark.parametrize("around", ["{}\n", " {}", "\t{}\r\n"])
def test_white_space_around_a_url_does_not_count(tmp_path: Path, around: str) -> None:
    """A file with the URL ends with a newline: that must not be another store."""
    url = around.format(f"sqlite:///{tmp_path}/status.db")
    record = ended(new_id())
    schema.upgrade(url)
    with closing(StoreWriter(url)) as writer:
        writer.merge([record])
    with closing(Store(url.strip())) as store:
        assert store.read(record.task_id, "shop") == status_of(record)


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without psycopg the error says what to install."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreUrlError, match=r'pip install "limetask\[postgresql\]"'):
        Store("postgresql://someone@host/statuses")


@pytest.mark.parametrize(
    "address",
    [
        "db..example/status",
        "./status",
        "a,db..example/status",
        "h" * 64 + "/status",
        "/status?host=db..example",
        "db:99999/status",
        "/status?port=abc",
        "${DATABASE_HOST}/status",
        "/status?host=a:1&host=b:x",
    ],
)
def test_an_address_that_cannot_be_is_told(address: str) -> None:
    """A host that no name can be, and a port that is no port, is an error of ours at once."""
    url = f"postgresql://shop:s3cret@{address}"
    with pytest.raises(StoreUrlError, match="LIMETASK_STORE_URL") as caught:
        Store(url).close()
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "[::1]:5432/status",
        "10.0.0.1/status",
        "a,b/status",
        "/status?host=/run/postgresql",
        "grün.example/status",
        "/status",
    ],
)
def test_an_address_of_any_kind_is_taken(address: str) -> None:
    """Names, addresses, several hosts and the folder of a socket are all right."""
    Store(f"postgresql://shop:s3cret@{address}").close()


def test_a_path_too_long_for_any_file_is_told(tmp_path: Path) -> None:
    """A path that no file can have is an error of ours, at each thing that is asked."""
    with closing(Store(f"sqlite:///{tmp_path}/{'x' * 300}")) as store:
        for ask in (store.schema_version, lambda: store.read(ids.new_task_id("shop"), "shop")):
            with pytest.raises(StoreError, match="too long"):
                ask()
