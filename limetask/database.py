"""Databases that can hold the status store: their engines, and their errors told as ours."""

from __future__ import annotations

import select
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, InvalidatePoolError, SQLAlchemyError

from limetask import clock
from limetask.errors import StoreError, StoreUrlError
from limetask.store_url import PREPARE_THRESHOLD, check_options, shown_url, sqlite_path

CONNECT_SECONDS = 5
"""Time to connect to PostgreSQL, for each address of its host. libpq takes no less than 2."""

# A network may have dropped a connection that has been idle for longer, and tells nobody: the server is asked.
_IDLE_SECONDS = 30

# Runs of a statement, as psycopg has it by default.
_PREPARE_AFTER = 5

_ADVICE = {
    "sqlite": "Check LIMETASK_STORE_URL, and that this user may write the file and its folder (to read it, too: "
    "SQLite keeps its locks there)",
    "postgresql": "Check LIMETASK_STORE_URL, and that PostgreSQL runs there and lets this user into the database",
}
_POOLER_ADVICE = (
    "This is PgBouncer or a pooler like it, which by default refuses the time limit that limetask gives each "
    "statement: add `ignore_startup_parameters = options` to the section [pgbouncer] of its configuration. Where you "
    "cannot, set LIMETASK_STORE_URL to the address of the database itself"
)


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
        raise StoreError(
            f"the status store {shown_url(url)} cannot be used: {reason}. {_advice(url, reason)}."
        ) from exc


def _advice(url: URL, reason: str) -> str:
    if "unsupported" in reason and "startup parameter" in reason:
        return _POOLER_ADVICE
    if url.get_backend_name() == "sqlite" and _is_folder(sqlite_path(url)):
        return "It is a folder: have LIMETASK_STORE_URL name a file in it"
    return _ADVICE[url.get_backend_name()]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long for any file
        return False


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
        from psycopg import pq
    except ImportError as exc:
        raise StoreUrlError(
            'PostgreSQL needs the driver psycopg, which cannot be imported: pip install "limetask[postgresql]"'
        ) from exc
    check_options(url.query, {option.keyword.decode() for option in pq.Conninfo.get_defaults()})
    _check_addresses(url)
    threshold = url.query.get(PREPARE_THRESHOLD)
    engine = create_engine(
        url.difference_update_query([PREPARE_THRESHOLD]),
        connect_args=_libpq_parameters(url, answer_seconds) | {PREPARE_THRESHOLD: threshold and int(str(threshold))},
        **options,
    )

    # First of all listeners, since SQLAlchemy's own asks the server things already.
    @event.listens_for(engine, "connect", insert=True)
    def limit_waiting(connection: Any, _record: Any) -> None:
        wait = connection.wait
        # One second more than the server has, so that it is the server that speaks up if it can.
        connection.wait = lambda steps, *arguments, **keywords: wait(
            _within(answer_seconds + 1, steps, connection), *arguments, **keywords
        )

    if threshold is None:
        # After SQLAlchemy's own, which is the first to ask the server something.
        event.listen(engine, "connect", _prepare_statements_unless_pooled)

    @event.listens_for(engine, "checkin")
    def note_use(_connection: Any, record: Any) -> None:
        record.info["used_at"] = clock.now()

    @event.listens_for(engine, "checkout")
    def check_connection(connection: Any, record: Any, _proxy: Any) -> None:
        # To ask the server each time, as a pool can do, would double what a read takes.
        is_long_idle = clock.now() - record.info.get("used_at", clock.now()) > _IDLE_SECONDS
        if _is_ended_by_server(connection) or (is_long_idle and not _answers(engine, connection)):
            raise InvalidatePoolError

    return engine


def _check_addresses(url: URL) -> None:
    """Raise StoreUrlError for hosts and ports that cannot be, in the URL or among its options.

    SQLAlchemy and Python's resolver would raise errors of their own for them, each time that a connection is opened.
    """
    try:
        _, parameters = url.get_dialect()().create_connect_args(url)
    except ArgumentError as exc:
        raise _wrong_address(str(exc)) from None
    for host in filter(None, str(parameters.get("host", "")).split(",")):
        if set("${}<>") & set(host):
            raise _wrong_address("a host has a placeholder in it, such as ${HOST}, that nobody has replaced")
        try:
            host.encode("idna")
        except UnicodeError:
            if not host.startswith("/"):  # the folder of a socket
                raise _wrong_address("a host is not a name: it has 1 to 63 characters between its dots") from None
    for port in filter(None, str(parameters.get("port", "")).split(",")):
        if not 0 < int(port) < 65536:
            raise _wrong_address(f"port {port} is not a number from 1 to 65535")


def _wrong_address(problem: str) -> StoreUrlError:
    return StoreUrlError(
        f"the address of PostgreSQL in LIMETASK_STORE_URL cannot be right: {problem}. Correct it there"
    )


def _prepare_statements_unless_pooled(connection: Any, _record: Any) -> None:
    """Have psycopg prepare what runs often, but not through PgBouncer and the like.

    One that hands out sessions by the transaction gives a statement that was prepared on one session to another. It
    does not say what it is; but a server tells the number of its process both at the start and when it is asked.
    """
    own_pid = connection.execute("SELECT pg_backend_pid()").fetchone()[0]
    connection.rollback()
    if own_pid == connection.info.backend_pid:
        connection.prepare_threshold = _PREPARE_AFTER


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


def _libpq_parameters(url: URL, answer_seconds: int) -> dict[str, Any]:
    """Return deadlines to connect with; what the URL's own query says wins."""
    given = url.query.get("options", "")
    own_options = given if isinstance(given, str) else " ".join(given)
    # Without a space at the end, at which PgBouncer stumbles.
    parameters = {"options": f"-c statement_timeout={answer_seconds}s {own_options}".strip()}
    if "connect_timeout" not in url.query:
        parameters["connect_timeout"] = str(CONNECT_SECONDS)
    return parameters


def _within(seconds: float, steps: Generator[Any, Any, Any], connection: Any) -> Generator[Any, Any, Any]:
    """Run psycopg's `steps` of one exchange with the server, and give up after `seconds`.

    The server's own statement timeout is of no help when the server, or the network, has stopped in the middle.
    psycopg takes a step at least ten times a second, whether or not something has arrived.
    """
    deadline = clock.now() + seconds
    ready = None
    while True:
        try:
            wanted = steps.send(ready)
        except StopIteration as end:
            return end.value
        ready = yield wanted
        if clock.now() > deadline:
            connection.close()
            raise _no_answer(seconds)


def _no_answer(seconds: float) -> Exception:
    from psycopg import OperationalError

    return OperationalError(f"PostgreSQL has not answered for {seconds} seconds")
