"""Databases that belong to one test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy


@contextmanager
def new_postgresql_database(admin_url: str, options: str = "") -> Iterator[str]:
    """Create a database, give its URL, and drop it afterwards, whoever is still connected."""
    name = f"limetask_test_{uuid.uuid4().hex}"
    url = sqlalchemy.make_url(admin_url)
    if url.drivername in ("postgresql", "postgres", "postgresql+psycopg2"):
        url = url.set(drivername="postgresql+psycopg")
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f'CREATE DATABASE "{name}" {options}'))
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f'DROP DATABASE "{name}" WITH (FORCE)'))
        engine.dispose()


def end_sessions(url: str) -> None:
    """End all sessions with this database, as a failover does."""
    _execute(
        url,
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )


def set_read_only(url: str, *, read_only: bool = True) -> None:
    """Have all sessions from now on take writes or not, as those of a standby do not until it is promoted."""
    name = sqlalchemy.make_url(url).database
    value = "on" if read_only else "off"
    _execute(url, "SET TRANSACTION READ WRITE", f'ALTER DATABASE "{name}" SET default_transaction_read_only = {value}')


def _execute(url: str, *statements: str) -> None:
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(sqlalchemy.text(statement))
