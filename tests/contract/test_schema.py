"""How the status store's schema comes about, on every database that it can be kept in."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, replace
from threading import Barrier, BrokenBarrierError

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, insert, inspect, make_url

from limetask.errors import StoreError, StoreTooNewError
from limetask.message import Claim, Started
from limetask.status import Rank, Status, TaskStatus
from limetask.store import Store
from limetask.store_tables import SCHEMA_VERSION, VERSION_TABLE, metadata, task_status
from limetask_worker import schema
from limetask_worker.store_writer import StoreWriter
from tests.contract.records import ended, engine_of, execute, new_id, started, status_of


def test_many_may_upgrade_at_once(store_url: str) -> None:
    """Several recorders that start together, while clients read, leave one schema."""
    barrier = Barrier(5, timeout=30)

    def upgrade(_: int) -> None:
        barrier.wait()
        schema.upgrade(store_url)

    def read() -> TaskStatus | None:
        with closing(Store(store_url)) as store:
            barrier.wait()
            return [store.read(new_id(), "shop") for _ in range(50)][-1]

    with ThreadPoolExecutor(5) as threads:
        reading = threads.submit(read)
        list(threads.map(upgrade, range(4)))
    assert reading.result() is None
    with engine_of(store_url) as engine:
        assert set(inspect(engine).get_table_names()) == {*metadata.tables, VERSION_TABLE}


def test_upgrades_take_turns(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one process migrates a database no other does: two never meet in the middle of it."""
    meeting, migrate = Barrier(2, timeout=0.5), schema._run_migrations

    def try_to_meet(connection: Connection) -> None:
        with pytest.raises(BrokenBarrierError):
            meeting.wait()
        migrate(connection)

    monkeypatch.setattr(schema, "_run_migrations", try_to_meet)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(schema.upgrade, [store_url] * 2))


# So that it goes on while it is replaced, an older recorder still finds what it writes.
LEFT_TO_OLDER_RECORDERS = {"begun"}


def test_migrations_make_the_schema_that_the_code_expects(migrated_url: str) -> None:
    """Alembic finds no difference between the migrated database and the table as the code has it."""
    options = {
        "version_table": VERSION_TABLE,
        "include_name": lambda name, _type, _parents: name not in LEFT_TO_OLDER_RECORDERS,
    }
    with engine_of(migrated_url) as engine, engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_the_index_of_running_tasks_is_partial(migrated_url: str) -> None:
    """Only running tasks are in the index by worker, so it stays small."""
    with engine_of(migrated_url) as engine:
        [index] = inspect(engine).get_indexes("limetask_task_status")
    backend = make_url(migrated_url).get_backend_name()
    assert index["column_names"] == ["worker"]
    assert "STARTED" in str(index["dialect_options"][f"{backend}_where"])


def test_upgrading_again_keeps_what_is_stored(store: Store, writer: StoreWriter, migrated_url: str) -> None:
    """Every recorder upgrades when it starts; that touches no status."""
    record = ended(new_id())
    writer.merge([record])
    schema.upgrade(migrated_url)
    assert store.read(record.task_id, "shop") == status_of(record)


@pytest.mark.parametrize("version", ["0001", "0002", "0003"])
def test_a_store_of_a_former_version_is_upgraded(store_url: str, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it holds stays, and goes on as if it had been written by this version."""
    upgrade = command.upgrade
    with monkeypatch.context() as former:
        former.setattr(command, "upgrade", lambda configuration, _head: upgrade(configuration, version))
        schema.upgrade(store_url)
    running = started(new_id(), acks_late=True)
    insert_as_sqlalchemy_does(store_url, running)
    schema.upgrade(store_url)
    claim = Claim(replace(running, worker="another"), may_run_again=True, reply_to="reply")
    with closing(StoreWriter(store_url)) as writer, closing(Store(store_url)) as store:
        assert store.read(running.task_id, "shop") == status_of(running)
        assert store.handlers() == []
        assert writer.claim(claim, 2, take_over=True).begun == 2


def insert_as_sqlalchemy_does(url: str, start: Started) -> None:
    row = asdict(start) | {"rank": Rank.STARTED.value, "status": Status.STARTED.value}
    with engine_of(url) as engine, engine.begin() as connection:
        connection.execute(insert(task_status), row)


def test_the_schema_can_be_asked_for_its_version(store_url: str) -> None:
    """A reader learns the schema's version, which is this code's after an upgrade, and None before."""
    with closing(Store(store_url)) as store:
        assert store.schema_version() is None
        schema.upgrade(store_url)
        assert store.schema_version() == SCHEMA_VERSION


def test_a_newer_schema_is_refused(migrated_url: str) -> None:
    """A database that a newer limetask has migrated is not touched: the error says to upgrade."""
    execute(migrated_url, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(StoreTooNewError, match=r"9999.*upgrade limetask"):
        schema.upgrade(migrated_url)


def test_a_failed_migration_leaves_nothing(store_url: str) -> None:
    """A migration is one transaction: what stands in its way is told, and nothing is half made."""
    execute(store_url, "CREATE TABLE limetask_task_status (task_id INTEGER)")
    with pytest.raises(StoreError, match="already exists"):
        schema.upgrade(store_url)
    with engine_of(store_url) as engine:
        assert inspect(engine).get_table_names() == ["limetask_task_status"]


def test_upgrading_leaves_logging_alone(store_url: str) -> None:
    """Migrations neither disable loggers nor add handlers."""
    ours, root = logging.getLogger("limetask.somewhere"), logging.getLogger()
    before = (list(root.handlers), root.level)
    schema.upgrade(store_url)
    assert not ours.disabled
    assert (list(root.handlers), root.level) == before
