"""What the store does while its PostgreSQL cannot be reached."""

from __future__ import annotations

import contextlib
import socket
import traceback
from collections.abc import Callable
from contextlib import closing
from secrets import token_hex
from select import select as wait_readable
from threading import Event, Thread
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import make_url, text

from limetask import database
from limetask import store as store_module
from limetask.errors import StoreError
from limetask.message import Claim, HandlerGone
from limetask.store import Store
from limetask_worker import schema
from limetask_worker.store_writer import RecordRejectedError, StoreWriter
from tests.contract.records import SENT, ended, engine_of, new_id, started, status_of
from tests.databases import end_sessions, set_read_only


@pytest.fixture
def short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds are the least that libpq takes."""
    monkeypatch.setattr(database, "CONNECT_SECONDS", 2)
    monkeypatch.setattr(store_module, "READ_SECONDS", 1)


def read_once(url: str) -> None:
    with closing(Store(url)) as store:
        store.read(new_id(), "shop")


def merge_once(url: str) -> None:
    with closing(StoreWriter(url)) as writer:
        writer.merge([ended(new_id())])


def prune_once(url: str) -> None:
    with closing(StoreWriter(url)) as writer:
        writer.prune(SENT)


@pytest.mark.parametrize("use", [read_once, merge_once, prune_once, schema.upgrade])
def test_postgresql_that_does_not_run_is_an_error(use: Callable[[str], None]) -> None:
    """Where nothing listens, every call says what to do, and not what the password is."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    password = token_hex()
    with pytest.raises(StoreError) as caught:
        use(f"postgresql://someone:{password}%2F@127.0.0.1:{port}/statuses?sslpassword={password}")
    assert f"postgresql://someone:***@127.0.0.1:{port}/statuses" in str(caught.value)
    assert "Check LIMETASK_STORE_URL" in str(caught.value)
    assert password not in "".join(traceback.format_exception(caught.value))


@pytest.mark.usefixtures("short_deadlines")
def test_a_silent_server_is_given_up() -> None:
    """A server that takes the connection and never says a word is given up within the deadline."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        begun = monotonic()
        with pytest.raises(StoreError, match="timeout"):
            read_once(f"postgresql://someone@127.0.0.1:{listener.getsockname()[1]}/statuses")
        assert monotonic() - begun < 4


@pytest.mark.usefixtures("short_deadlines")
@pytest.mark.parametrize("idle_seconds", [0, 1000])
def test_a_server_that_stops_answering_is_given_up(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch, idle_seconds: float
) -> None:
    """When the network freezes under an open connection, a read fails within its deadlines, and works afterwards.

    It makes no difference whether the connection has been idle for so long that the server is asked first.
    """
    monkeypatch.setattr(database, "_IDLE_SECONDS", idle_seconds)
    schema.upgrade(postgresql_url)
    with FreezableProxy(postgresql_url) as proxy, closing(Store(proxy.url)) as store:
        assert store.read(new_id(), "shop") is None
        proxy.frozen.set()
        begun = monotonic()
        with pytest.raises(StoreError):
            store.read(new_id(), "shop")
        assert monotonic() - begun < 8
        proxy.frozen.clear()
        assert store.read(new_id(), "shop") is None


@pytest.mark.usefixtures("short_deadlines")
def test_a_statement_that_takes_too_long_is_given_up(postgresql_url: str) -> None:
    """A read that waits for a lock is ended by the server within its deadline, and works afterwards."""
    schema.upgrade(postgresql_url)
    with engine_of(postgresql_url) as engine, engine.connect() as blocker, closing(Store(postgresql_url)) as store:
        blocker.execute(text("LOCK TABLE limetask_task_status"))
        with pytest.raises(StoreError, match="statement timeout"):
            store.read(new_id(), "shop")
        blocker.rollback()
        assert store.read(new_id(), "shop") is None


def test_a_restarted_server_is_not_noticed(postgresql_url: str) -> None:
    """Connections that the server has closed meanwhile are replaced: reads and writes go on."""
    schema.upgrade(postgresql_url)
    record = ended(new_id())
    with closing(Store(postgresql_url)) as store, closing(StoreWriter(postgresql_url)) as writer:
        assert store.read(record.task_id, "shop") is None
        assert writer.running_under("host:12:a") == []
        end_sessions(postgresql_url)
        writer.merge([record])
        assert store.read(record.task_id, "shop") == status_of(record)


@pytest.mark.parametrize(
    "use",
    [
        lambda writer: writer.merge([ended(new_id())]),
        lambda writer: writer.claim(Claim(started(new_id()), False, ""), 5, take_over=False),
        lambda writer: writer.prune(SENT),
        lambda writer: writer.delete_handler(HandlerGone("pkg.handlers.tell", SENT)),
    ],
    ids=["merge", "claim", "prune", "delete_handler"],
)
def test_a_session_that_takes_no_writes_is_given_up(postgresql_url: str, use: Callable[[StoreWriter], Any]) -> None:
    """A session that was opened while the server took no writes stays so: the next try has one of its own."""
    schema.upgrade(postgresql_url)
    with closing(StoreWriter(postgresql_url)) as writer:
        set_read_only(postgresql_url)
        with pytest.raises(StoreError, match="read-only transaction") as caught:
            use(writer)
        assert not isinstance(caught.value, RecordRejectedError)
        set_read_only(postgresql_url, read_only=False)
        use(writer)


class FreezableProxy:
    """Passes bytes on between clients and a PostgreSQL server, until it is frozen."""

    def __init__(self, server_url: str) -> None:
        server = make_url(server_url)
        self._target = (server.host or "localhost", server.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._peers: dict[socket.socket, socket.socket] = {}
        self._stopped = Event()
        self._thread = Thread(target=self._pass_on)
        self.frozen = Event()
        port = self._listener.getsockname()[1]
        self.url = server.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)

    def __enter__(self) -> FreezableProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        for end in [self._listener, *self._peers]:
            end.close()

    def _pass_on(self) -> None:
        while not self._stopped.is_set():
            readable = wait_readable([self._listener, *self._peers], [], [], 0.05)[0]
            if self.frozen.is_set():
                self._stopped.wait(0.05)
                continue
            for end in readable:
                self._read(end)

    def _read(self, end: socket.socket) -> None:
        if end is self._listener:
            client, server = end.accept()[0], socket.create_connection(self._target)
            self._peers |= {client: server, server: client}
        elif end in self._peers:
            self._forward(end)

    def _forward(self, end: socket.socket) -> None:
        peer = self._peers[end]
        with contextlib.suppress(ConnectionError):  # a client that gives up while it is sent something resets
            if data := end.recv(65536):
                peer.sendall(data)
                return
        for closed in (end, peer):
            del self._peers[closed]
            closed.close()
