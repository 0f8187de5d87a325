"""The status store's schema: brings a database to this version of limetask, whoever else does so now."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection

from limetask.database import open_engine, store_errors
from limetask.errors import StoreTooNewError
from limetask.store_tables import VERSION_TABLE
from limetask.store_url import parse_store_url, sqlite_path
from limetask_worker.store_place import check_place, lock_file_of

UPGRADE_SECONDS = 600
"""Time for each step of a migration, and to wait for another process that migrates the same database."""

# Held until the transaction ends. SQLite's is also what makes its DDL part of a transaction at all.
_LOCK = {
    "sqlite": "BEGIN IMMEDIATE",
    "postgresql": "SELECT pg_advisory_xact_lock(hashtext('limetask_schema_version'))",
}

# Alembic keeps the migration at hand in global variables.
_alembic_lock = Lock()


def upgrade(url: str) -> None:
    """Create the status store's schema, or bring it up to date; an SQLite file is created too, if its folder is there.

    Safe to call in several threads and processes at once. Raises StoreError if the database cannot be used,
    StoreTooNewError if it has the schema of a newer limetask, and StoreUrlError if `url` is wrong.
    """
    parsed = parse_store_url(url)
    with store_errors(parsed):
        check_place(parsed)
        if parsed.get_backend_name() == "sqlite":
            with _lock_file_of(sqlite_path(parsed)):
                _upgrade(parsed)
        else:
            _upgrade(parsed)


@contextmanager
def _lock_file_of(database: Path) -> Iterator[None]:
    """Let one process at a time through. SQLite's own locks do not cover the change to WAL mode."""
    with lock_file_of(database).open("w") as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)
        yield


def _upgrade(url: URL) -> None:
    backend = url.get_backend_name()
    engine = open_engine(
        url,
        answer_seconds=UPGRADE_SECONDS,
        autocommit=backend == "sqlite",
        sqlite_mode="rwc",
        sqlite_pragmas=("journal_mode = WAL", "synchronous = FULL"),
    )
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(_LOCK[backend])
            _run_migrations(connection)
    finally:
        engine.dispose()


def _run_migrations(connection: Connection) -> None:
    configuration = Config()
    configuration.set_main_option("script_location", "limetask_worker:migrations")
    configuration.attributes["connection"] = connection
    with _alembic_lock:
        _refuse_newer_schema(connection, ScriptDirectory.from_config(configuration))
        command.upgrade(configuration, "head")


def _refuse_newer_schema(connection: Connection, scripts: ScriptDirectory) -> None:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    known = {script.revision for script in scripts.walk_revisions()}
    unknown = set(context.get_current_heads()) - known
    if unknown:
        raise StoreTooNewError(
            f"the status store has the schema of a newer limetask ({', '.join(sorted(unknown))}): "
            "upgrade limetask here to the version that the other workers run"
        )
