"""The status store: its one table as data, and its reading side.

Importing SQLAlchemy takes a while, so the client imports this module at its first read of a status. Only the
recorder writes the table, and only the recorder's migrations make it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import orjson
from sqlalchemy import (
    URL,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Engine,
    Index,
    Integer,
    MetaData,
    Row,
    SmallInteger,
    Table,
    Text,
    Uuid,
    bindparam,
    create_engine,
    event,
    literal_column,
    make_url,
    select,
)
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, DisconnectionError, SQLAlchemyError
from sqlalchemy.types import TypeDecorator

from limetask.errors import StoreError, StoreUrlError
from limetask.status import ErrorInfo, Status, TaskStatus

CONNECT_SECONDS = 5
"""Time to connect to PostgreSQL, for each address of its host. libpq takes no less than 2."""

READ_SECONDS = 5
"""Time for PostgreSQL to answer a read, or for SQLite to get a lock."""

_READ_CONNECTIONS = 5

_DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
_URL_EXAMPLE = (
    "LIMETASK_STORE_URL looks like sqlite:////var/lib/limetask/status.db (four slashes before an absolute path) "
    "or postgresql://user:password@host:5432/database (with special characters percent-encoded)"
)
_ADVICE = {
    "sqlite": "Check LIMETASK_STORE_URL, and that this user may write the file and its folder (to read it, too: "
    "SQLite keeps its locks there)",
    "postgresql": "Check LIMETASK_STORE_URL, and that PostgreSQL runs there and lets this user into the database",
}
_UNDEFINED_TABLE = "42P01"


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, exact to the microsecond, that comes back in UTC from every database."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return `value` in UTC, which is what SQLite's text then holds. Raises ValueError for a naive one."""
        if value is not None and value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return in UTC what SQLite gives naive, and PostgreSQL in the session's time zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData()

# `result` and `error` are JSON as TEXT, since JSONB refuses \u0000. A result of None is the JSON null, so that NULL
# means unfinished. Nothing but the primary key serves to prune: ids sort by age.
task_status = Table(
    "limetask_task_status",
    metadata,
    Column("task_id", Uuid(as_uuid=False), primary_key=True),
    Column("app", Text, nullable=False),
    Column("task_name", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("rank", SmallInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("result", Text),
    Column("error", Text),
    Column("worker", Text),
    Column("acks_late", Boolean),
    Column("sent_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
)

# A literal, not a parameter: a database uses a partial index only if it sees the condition in the query.
is_started = task_status.c.status == literal_column(f"'{Status.STARTED}'")

Index(
    "limetask_task_status_started",
    task_status.c.worker,
    postgresql_where=is_started,
    sqlite_where=is_started,
)

_columns = task_status.c
_BY_ID_AND_APP = select(
    _columns.task_id,
    _columns.app,
    _columns.task_name,
    _columns.attempt,
    _columns.status,
    _columns.result,
    _columns.error,
    _columns.worker,
    _columns.sent_at,
    _columns.started_at,
    _columns.finished_at,
).where(_columns.task_id == bindparam("task_id"), _columns.app == bindparam("app"))


class Store:
    """Reads statuses. Safe in any thread; after a fork the child must make a Store of its own.

    It opens no connection before the first read, and never creates anything.
    """

    def __init__(self, url: str) -> None:
        """Raises StoreUrlError if `url` is not that of an SQLite file or a PostgreSQL database."""
        self._url = parse_store_url(url)
        self._engine = open_engine(
            self._url, answer_seconds=READ_SECONDS, connections=_READ_CONNECTIONS, autocommit=True
        )

    def read(self, task_id: str, app: str) -> TaskStatus | None:
        """Return the status of the task with this id and this application, None if the store has none.

        A store that nothing was ever written to has none. Raises StoreError if the database cannot be read: it has
        CONNECT_SECONDS to connect and READ_SECONDS to answer, and a thread waits as long for a free connection.
        """
        with store_errors(self._url):
            row = self._row(task_id, app)
        return None if row is None else _status_of(row)

    def close(self) -> None:
        """Close all connections. A later read opens new ones."""
        self._engine.dispose()

    def _row(self, task_id: str, app: str) -> Row[*tuple[Any, ...]] | None:
        if self._url.get_backend_name() == "sqlite" and not sqlite_path(self._url).exists():
            return None
        try:
            with self._engine.connect() as connection:
                return connection.execute(_BY_ID_AND_APP, {"task_id": task_id, "app": app}).first()
        except (DataError, UnicodeEncodeError):
            return None  # what the database refuses as an id or as text is not in it
        except DBAPIError as exc:
            if _is_missing_table(exc):
                return None
            raise


def parse_store_url(url: str) -> URL:
    """Return `url` with the driver that limetask uses, and an SQLite file's path made absolute.

    Raises StoreUrlError, which shows no password.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Without the cause, whose text may be the password.
        raise StoreUrlError(f"the status store's URL cannot be read. {_URL_EXAMPLE}") from None
    driver = _DRIVERS.get(parsed.drivername)
    if driver is None:
        raise StoreUrlError(f"the status store cannot be {parsed.drivername!r}. {_URL_EXAMPLE}")
    parsed = parsed.set(drivername=driver)
    return _checked_sqlite_url(parsed) if driver == "sqlite" else _checked_postgresql_url(parsed)


def sqlite_path(url: URL) -> Path:
    """Return the file that a parsed SQLite URL names."""
    return Path(url.database or "")


def open_engine(
    url: URL,
    *,
    answer_seconds: int,
    connections: int = 1,
    autocommit: bool = False,
    sqlite_mode: str = "rw",
    sqlite_pragmas: tuple[str, ...] = (),
) -> Engine:
    """Return an engine for a parsed URL; it connects when it is first used.

    `answer_seconds` bounds every statement in PostgreSQL, and every wait for a lock in SQLite. A connection to a
    stopped server or a replaced file is replaced too. `sqlite_mode` is "rw", or "rwc" to create the file. Raises
    StoreUrlError if the driver is not installed.
    """
    options: dict[str, Any] = {
        "pool_size": connections,
        "max_overflow": 0,
        "pool_timeout": answer_seconds,
        "hide_parameters": True,
    }
    if autocommit:
        options["isolation_level"] = "AUTOCOMMIT"
    if url.get_backend_name() == "sqlite":
        return _sqlite_engine(url, answer_seconds, sqlite_mode, sqlite_pragmas, options)
    return _postgresql_engine(url, answer_seconds, options)


@contextmanager
def store_errors(url: URL) -> Iterator[None]:
    """Turn every error of the database, its driver and its file into a StoreError that says what to do."""
    try:
        yield
    except (SQLAlchemyError, OSError) as exc:
        reason = str(exc.orig if isinstance(exc, DBAPIError) else exc).strip()
        advice = _ADVICE[url.get_backend_name()]
        raise StoreError(f"the status store {_shown(url)} cannot be used: {reason}. {advice}.") from exc


def _checked_sqlite_url(url: URL) -> URL:
    if url.host or url.query:
        raise StoreUrlError(f"the status store's URL must be sqlite:/// and a path alone. {_URL_EXAMPLE}")
    if url.database in (None, "", ":memory:") or str(url.database).startswith("file:"):
        raise StoreUrlError(
            f"the status store must be a file, since several processes share it: not {url}. {_URL_EXAMPLE}"
        )
    return url.set(database=str(sqlite_path(url).absolute()))


def _checked_postgresql_url(url: URL) -> URL:
    # After a raw @ in a password, the rest of the password is taken for the host.
    if "@" in f"{url.host}{url.database}":
        raise StoreUrlError(f"the status store's URL cannot be read: an @ is out of place. {_URL_EXAMPLE}")
    return url


def _is_missing_table(error: DBAPIError) -> bool:
    return getattr(error.orig, "sqlstate", None) == _UNDEFINED_TABLE or "no such table" in str(error.orig)


def _shown(url: URL) -> str:
    return url.set(drivername=url.get_backend_name(), query={}).render_as_string(hide_password=True)


def _sqlite_engine(
    url: URL, answer_seconds: int, mode: str, pragmas: tuple[str, ...], options: dict[str, Any]
) -> Engine:
    path = sqlite_path(url)
    # Never "ro": that cannot open a file in WAL mode whose writer has left, unless it may write the folder anyhow.
    location = URL.create("sqlite", database=path.as_uri(), query={"mode": mode, "uri": "true"})
    engine = create_engine(location, connect_args={"timeout": answer_seconds}, **options)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        record.info["file"] = _file_identity(path)
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "checkout")
    def check_file(_connection: Any, record: Any, _proxy: Any) -> None:
        # A deleted file stays readable and writable for whoever has it open: what is written there is lost.
        if record.info["file"] != _file_identity(path):
            raise DisconnectionError("the database file was replaced")

    return engine


def _file_identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _postgresql_engine(url: URL, answer_seconds: int, options: dict[str, Any]) -> Engine:
    try:
        engine = create_engine(url, pool_pre_ping=True, connect_args=_libpq_parameters(url, answer_seconds), **options)
    except ImportError as exc:
        raise StoreUrlError(
            'PostgreSQL needs the driver psycopg, which cannot be imported: pip install "limetask[postgresql]"'
        ) from exc

    # First of all listeners, since SQLAlchemy's own asks the server things already.
    @event.listens_for(engine, "connect", insert=True)
    def limit_waiting(connection: Any, _record: Any) -> None:
        wait = connection.wait
        # One second more than the server has, so that it is the server that speaks up if it can.
        connection.wait = lambda steps, *arguments, **keywords: wait(
            _within(answer_seconds + 1, steps, connection), *arguments, **keywords
        )

    return engine


def _libpq_parameters(url: URL, answer_seconds: int) -> dict[str, str]:
    """Return deadlines to connect with; what the URL's own query says wins."""
    given = url.query.get("options", "")
    own_options = given if isinstance(given, str) else " ".join(given)
    parameters = {"options": f"-c statement_timeout={answer_seconds}s {own_options}"}
    if "connect_timeout" not in url.query:
        parameters["connect_timeout"] = str(CONNECT_SECONDS)
    return parameters


def _within(seconds: float, steps: Generator[Any, Any, Any], connection: Any) -> Generator[Any, Any, Any]:
    """Run psycopg's `steps` of one exchange with the server, and give up after `seconds`.

    The server's own statement timeout is of no help when the server, or the network, has stopped in the middle.
    psycopg takes a step at least ten times a second, whether or not something has arrived.
    """
    deadline = monotonic() + seconds
    ready = None
    while True:
        try:
            wanted = steps.send(ready)
        except StopIteration as end:
            return end.value
        ready = yield wanted
        if monotonic() > deadline:
            connection.close()
            raise _no_answer(seconds)


def _no_answer(seconds: float) -> Exception:
    from psycopg import OperationalError

    return OperationalError(f"PostgreSQL has not answered for {seconds} seconds")


def _status_of(row: Row[*tuple[Any, ...]]) -> TaskStatus:
    return TaskStatus(
        id=row.task_id,
        status=Status(row.status),
        result=None if row.result is None else orjson.loads(row.result),
        error=None if row.error is None else _error_of(orjson.loads(row.error)),
        task_name=row.task_name,
        app=row.app,
        attempt=row.attempt,
        worker=row.worker,
        sent_at=row.sent_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def _error_of(fields: dict[str, str]) -> ErrorInfo:
    return ErrorInfo(type=fields["type"], message=fields["message"], traceback=fields["traceback"])
