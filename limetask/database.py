"""Databases that can hold the status store: their URLs, their engines, and their errors told as ours."""

from __future__ import annotations

import select
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, InvalidatePoolError, SQLAlchemyError

from limetask.errors import StoreError, StoreUrlError

CONNECT_SECONDS = 5
"""Time to connect to PostgreSQL, for each address of its host. libpq takes no less than 2."""

# A network may have dropped a connection that has been idle for longer, and tells nobody: the server is asked.
_IDLE_SECONDS = 30

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
        options |= {"isolation_level": "AUTOCOMMIT", "pool_reset_on_return": None}  # nothing is left to roll back
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
        engine = create_engine(url, connect_args=_libpq_parameters(url, answer_seconds), **options)
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

    @event.listens_for(engine, "checkin")
    def note_use(_connection: Any, record: Any) -> None:
        record.info["used_at"] = monotonic()

    @event.listens_for(engine, "checkout")
    def check_connection(connection: Any, record: Any, _proxy: Any) -> None:
        # To ask the server each time, as a pool can do, would double what a read takes.
        is_long_idle = monotonic() - record.info.get("used_at", monotonic()) > _IDLE_SECONDS
        if _is_ended_by_server(connection) or (is_long_idle and not _answers(engine, connection)):
            raise InvalidatePoolError

    return engine


def _is_ended_by_server(connection: Any) -> bool:
    """Return True if the server has closed an idle connection, or says on it that it will.

    What else it may say there is rare, and the connection is then replaced in vain.
    """
    if not hasattr(select, "poll"):  # on Windows, where `select` takes sockets of any number
        return bool(select.select([connection], [], [], 0)[0])
    arrived = select.poll()
    arrived.register(connection, select.POLLIN)
    return bool(arrived.poll(0))


def _answers(engine: Engine, connection: Any) -> bool:
    try:
        return engine.dialect.do_ping(connection)
    except engine.dialect.loaded_dbapi.Error:
        return False


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
