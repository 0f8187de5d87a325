"""TLS on the way to the broker, through a proxy that ends it before the plain broker of the other tests."""

from __future__ import annotations

import contextlib
import datetime
import os
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from limetask import (
    BrokerRefusedError,
    BrokerUnreachableError,
    BrokerUrlError,
    ConfigurationError,
    LimetaskError,
    Settings,
    configure,
    send_task,
)
from limetask.amqp import Connection
from limetask.amqp.url import connection_parameters
from limetask.client import close_default_client
from limetask.topology import Names
from tests.broker import queue_length
from tests.worker import Worker

PASSWORD = "guest"


class Authority:
    """Makes certificates, and files of them."""

    def __init__(self, folder: Path, name: str) -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self._name = name
        self.path = str(folder / f"{name}.pem")
        self._ca.cert_pem.write_to_path(self.path)

    def server(self, *hosts: str, not_after: datetime.datetime | None = None) -> ssl.SSLContext:
        """Return the TLS of a server with a certificate for these hosts."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(*hosts, not_after=not_after).configure_cert(context)
        return context

    def vouch_for_clients_of(self, server: ssl.SSLContext) -> None:
        """Have a server ask for a client's certificate that this authority made."""
        self._ca.configure_trust(server)
        server.verify_mode = ssl.CERT_REQUIRED

    def client(self) -> dict[str, str]:
        """Return the settings of a client with a certificate of its own."""
        made = self._ca.issue_cert("producer@example.org")
        certificate, key = self._folder / f"{self._name}-client.pem", self._folder / f"{self._name}-client.key"
        made.cert_chain_pems[0].write_to_path(certificate)
        made.private_key_pem.write_to_path(key)
        return {"broker_certificate": str(certificate), "broker_key": str(key)}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Whom the client trusts."""
    return Authority(tmp_path, "authority")


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    """Whom nobody trusts."""
    return Authority(tmp_path, "stranger")


class TlsProxy:
    """Ends the TLS of each connection, and hands on what comes to the plain broker."""

    def __init__(self, broker_url: str, context: ssl.SSLContext) -> None:
        parts = urlsplit(broker_url)
        self._target = (parts.hostname or "localhost", parts.port or 5672)
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def close(self) -> None:
        for end in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # wakes its thread
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self._listener.accept()
                self._ends.append(accepted)
                self._threads.append(threading.Thread(target=self._serve, args=(accepted,), daemon=True))
                self._threads[-1].start()

    def _serve(self, accepted: socket.socket) -> None:
        with accepted:
            near = self._context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
            self._ends.append(near)
            with near, contextlib.suppress(OSError):
                self._hand_on(near)

    def _hand_on(self, near: ssl.SSLSocket) -> None:
        try:
            near.do_handshake()
        except ssl.SSLError:
            _let_it_be_read(near)
            return
        with socket.create_connection(self._target) as far:
            _pump(near, far)


def _pump(near: ssl.SSLSocket, far: socket.socket) -> None:
    while True:
        # What TLS has unpacked already makes no socket readable.
        readable = [near] if near.pending() else select.select([near, far], [], [])[0]
        for source, sink in ((near, far), (far, near)):
            if source in readable:
                data = source.recv(65536)
                if not data:
                    return
                sink.sendall(data)


def _let_it_be_read(near: ssl.SSLSocket) -> None:
    """Close only after the other side: data that nobody has read would take our last words away with a reset."""
    near.shutdown(socket.SHUT_WR)  # of the socket, without TLS
    with socket.socket(fileno=os.dup(near.fileno())) as plain:
        while plain.recv(65536):
            pass


@contextlib.contextmanager
def tls_proxy(broker_url: str, context: ssl.SSLContext) -> Iterator[int]:
    """Serve TLS on a port of its own; the port is given."""
    proxy = TlsProxy(broker_url, context)
    try:
        yield proxy.port
    finally:
        close_default_client()
        proxy.close()


def over_tls(settings: Settings, port: int, *, host: str = "localhost", **changes: Any) -> Settings:
    """The settings of a client that comes by TLS, in force in this process."""
    made = replace(settings, broker_url=f"amqps://guest:{PASSWORD}@{host}:{port}/", connect_timeout=10, **changes)
    configure(made)
    return made


def settings_with(url: str, changes: Mapping[str, Any]) -> Settings:
    return Settings(broker_url=url, **changes)


def error_of_sending() -> LimetaskError:
    """Send a task and return the error, which must hold no password."""
    with pytest.raises(LimetaskError) as caught:
        send_task("shop.tasks.add", "acme", 2, 3)
    assert f":{PASSWORD}@" not in str(caught.value)
    return caught.value


class TestTrust:
    def test_tasks_go_by_tls(
        self, settings: Settings, authority: Authority, start_worker: Callable[..., Worker]
    ) -> None:
        """Producer, worker and recorder work over TLS with a broker whose certificate the authority made."""
        with tls_proxy(settings.broker_url, authority.server("localhost")) as port:
            start_worker(over_tls(settings, port, broker_ca=authority.path), "shop", "--processes", "1")
            status = send_task("shop.tasks.echo", "acme", "x" * 500_000).wait(30)
            assert status.result is not None

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
    def test_a_host_is_checked_by_the_name_in_the_url(
        self, settings: Settings, authority: Authority, host: str
    ) -> None:
        """A certificate may be for a name or for an address, as the URL has it."""
        with tls_proxy(settings.broker_url, authority.server(host)) as port:
            over_tls(settings, port, host=host, broker_ca=authority.path)
            send_task("shop.tasks.add", "acme", 2, 3)
        assert queue_length(settings.broker_url, Names(settings.namespace).task_queue("default")) == 1

    @pytest.mark.parametrize("trusting", ["the stranger", "the system"])
    def test_an_unknown_authority_is_refused(
        self, settings: Settings, authority: Authority, stranger: Authority, trusting: str
    ) -> None:
        """A certificate of another authority, or of one that the system does not know, is an error that says so."""
        with tls_proxy(settings.broker_url, authority.server("localhost")) as port:
            over_tls(settings, port, broker_ca=stranger.path if trusting == "the stranger" else "")
            error = error_of_sending()
        assert isinstance(error, BrokerRefusedError)
        assert "cannot be trusted" in str(error)
        assert "LIMETASK_BROKER_CA" in str(error)

    @pytest.mark.parametrize(("host", "name"), [("localhost", "other.example"), ("127.0.0.1", "localhost")])
    def test_a_certificate_for_another_name_is_refused(
        self, settings: Settings, authority: Authority, host: str, name: str
    ) -> None:
        """The right authority is not enough: the certificate must be for the host in the URL."""
        with tls_proxy(settings.broker_url, authority.server(name)) as port:
            over_tls(settings, port, host=host, broker_ca=authority.path)
            error = error_of_sending()
        assert isinstance(error, BrokerRefusedError)
        assert f"{host}:{port} is not for that name" in str(error)
        assert "LIMETASK_BROKER_URL" in str(error)

    def test_an_expired_certificate_is_refused(self, settings: Settings, authority: Authority) -> None:
        """The error tells that the certificate has expired."""
        yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
        with tls_proxy(settings.broker_url, authority.server("localhost", not_after=yesterday)) as port:
            over_tls(settings, port, broker_ca=authority.path)
            error = error_of_sending()
        assert isinstance(error, BrokerRefusedError)
        assert "expired" in str(error)

    def test_tls_to_a_plain_broker_says_so(self, settings: Settings) -> None:
        """An `amqps://` URL with the port of AMQP without TLS is told apart from an absent broker."""
        over_tls(replace(settings, send_timeout=5), urlsplit(settings.broker_url).port or 5672)
        error = error_of_sending()
        assert isinstance(error, BrokerUnreachableError)
        assert "amqps://" in str(error)

    def test_no_tls_to_a_tls_broker_says_so(self, settings: Settings, authority: Authority) -> None:
        """An `amqp://` URL with the port of TLS is told what may be wrong."""
        with tls_proxy(settings.broker_url, authority.server("localhost")) as port:
            configure(replace(settings, broker_url=f"amqp://guest:{PASSWORD}@localhost:{port}/", send_timeout=5))
            error = error_of_sending()
        assert isinstance(error, BrokerUnreachableError)
        assert "amqps://" in str(error)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
class TestClientCertificate:
    @pytest.fixture
    def server(self, authority: Authority, version: ssl.TLSVersion) -> ssl.SSLContext:
        """The TLS of a server that speaks one version only, and asks for the client's certificate."""
        context = authority.server("localhost")
        context.minimum_version = context.maximum_version = version
        authority.vouch_for_clients_of(context)
        return context

    def test_it_is_shown(self, settings: Settings, authority: Authority, server: ssl.SSLContext) -> None:
        """With certificate and key the broker lets us in."""
        with tls_proxy(settings.broker_url, server) as port:
            over_tls(settings, port, broker_ca=authority.path, **authority.client())
            send_task("shop.tasks.add", "acme", 2, 3)

    def test_certificate_and_key_may_be_in_one_file(
        self, settings: Settings, authority: Authority, server: ssl.SSLContext, tmp_path: Path
    ) -> None:
        """Without a file for the key it is looked for beside the certificate."""
        both = tmp_path / "both.pem"
        both.write_text("".join(Path(path).read_text() for path in authority.client().values()))
        with tls_proxy(settings.broker_url, server) as port:
            over_tls(settings, port, broker_ca=authority.path, broker_certificate=str(both))
            send_task("shop.tasks.add", "acme", 2, 3)

    @pytest.mark.parametrize("shown", ["none", "a stranger's"])
    def test_without_a_right_one_the_error_says_what_is_wanted(
        self, settings: Settings, authority: Authority, stranger: Authority, server: ssl.SSLContext, shown: str
    ) -> None:
        """A missing certificate, or one that the broker does not trust, is told with the setting to look at."""
        with tls_proxy(settings.broker_url, server) as port:
            own = stranger.client() if shown == "a stranger's" else {}
            over_tls(settings, port, broker_ca=authority.path, **own)
            error = error_of_sending()
        assert isinstance(error, BrokerRefusedError)
        assert "LIMETASK_BROKER_CERTIFICATE" in str(error)


class TestSettings:
    TLS = Settings(broker_url="amqps://guest:s3cret@broker/")

    def error_with(self, files: Mapping[str, str], url: str = TLS.broker_url) -> str:
        with pytest.raises(ConfigurationError) as caught:
            Connection(settings_with(url, files), "test")
        assert "s3cret" not in str(caught.value)
        return str(caught.value)

    @pytest.mark.parametrize("name", ["broker_ca", "broker_certificate", "broker_key"])
    def test_a_missing_file_is_named(self, authority: Authority, name: str) -> None:
        """A file that is not there is an error with the setting and its path, before anything is opened."""
        message = self.error_with(authority.client() | {name: "/nowhere/file.pem"})
        assert f"LIMETASK_{name.upper()}: cannot read /nowhere/file.pem: No such file" in message

    @pytest.mark.parametrize("name", ["broker_ca", "broker_certificate", "broker_key"])
    def test_a_file_with_something_else_is_named(self, authority: Authority, tmp_path: Path, name: str) -> None:
        """A file that holds no certificate, or no key, is an error with its path."""
        nonsense = tmp_path / "nonsense.pem"
        nonsense.write_text("hello")
        files = authority.client() | {name: str(nonsense)}
        assert any(files[blamed] in self.error_with(files) for blamed in (name, "broker_key"))

    def test_a_key_of_another_certificate_is_an_error(self, authority: Authority, stranger: Authority) -> None:
        """Certificate and key belong together."""
        files = authority.client() | {"broker_key": stranger.client()["broker_key"]}
        assert "LIMETASK_BROKER_KEY" in self.error_with(files)

    def test_a_key_with_a_passphrase_is_an_error(self, authority: Authority) -> None:
        """A process without a terminal must not wait for somebody to type the passphrase."""
        files = authority.client()
        key = serialization.load_pem_private_key(Path(files["broker_key"]).read_bytes(), None)
        Path(files["broker_key"]).write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"passphrase"),
            )
        )
        assert "without a passphrase" in self.error_with(files)

    def test_a_key_needs_its_certificate(self, authority: Authority) -> None:
        """A key alone is an error: nobody would be shown a certificate."""
        message = self.error_with({"broker_key": authority.client()["broker_key"]})
        assert "LIMETASK_BROKER_CERTIFICATE" in message

    @pytest.mark.parametrize("name", ["broker_ca", "broker_certificate", "broker_key"])
    def test_files_without_tls_are_an_error(self, authority: Authority, name: str) -> None:
        """Whoever sets a certificate believes in encryption, which an `amqp://` URL does not have."""
        message = self.error_with({name: authority.path}, "amqp://guest:s3cret@broker/")
        assert f"LIMETASK_{name.upper()} is set" in message
        assert "amqps://" in message

    def test_the_check_cannot_be_turned_off(self) -> None:
        """Certificate and name are always checked, with TLS 1.2 or newer; the URL has no say in it."""
        options = connection_parameters(self.TLS, "test").ssl_options
        assert options.context.verify_mode is ssl.CERT_REQUIRED
        assert options.context.check_hostname
        assert options.context.minimum_version >= ssl.TLSVersion.TLSv1_2
        assert options.server_hostname == "broker"
        with pytest.raises(BrokerUrlError, match="LIMETASK_BROKER_CA"):
            connection_parameters(Settings(broker_url="amqps://broker?ssl_options={'verify_mode':'0'}"), "test")
