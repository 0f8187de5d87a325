"""pika's errors become ours, in one place, and no message holds a password."""

from __future__ import annotations

import inspect
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest
from pika import exceptions as pika_errors
from pika.adapters.utils import connection_workflow

from limetask import (
    BrokerError,
    BrokerRefusedError,
    BrokerUnreachableError,
    BrokerUrlError,
    ConnectionLostError,
    Settings,
    UnroutableError,
)
from limetask.amqp import Connection, hidden_password
from limetask.amqp.faults import map_error
from limetask.amqp.url import connection_parameters, parse_url

PASSWORD = "s3cret"
PARAMETERS = parse_url(f"amqp://shop:{PASSWORD}@broker.example:5673/orders")


def classes_of(module: Any) -> dict[str, type[BaseException]]:
    found = {name: kind for name, kind in vars(module).items() if inspect.isclass(kind)}
    return {name: kind for name, kind in found.items() if issubclass(kind, BaseException)}


PIKA_CLASSES = classes_of(pika_errors) | classes_of(connection_workflow)
MAPPED: dict[str, type[BrokerError]] = {
    # Who we are, or what we may do.
    "AuthenticationError": BrokerRefusedError,
    "ProbableAuthenticationError": BrokerRefusedError,
    "ProbableAccessDeniedError": BrokerRefusedError,
    # There is no broker, or none that speaks to us.
    "IncompatibleProtocolError": BrokerUnreachableError,
    "ProtocolSyntaxError": BrokerUnreachableError,
    "ProtocolVersionMismatch": BrokerUnreachableError,
    "UnexpectedFrameError": BrokerUnreachableError,
    "BodyTooLongError": BrokerUnreachableError,
    "InvalidFrameError": BrokerUnreachableError,
    "InvalidFieldTypeException": BrokerUnreachableError,
    "UnsupportedAMQPFieldException": BrokerUnreachableError,
    "AMQPConnectorException": BrokerUnreachableError,
    "AMQPConnectorStackTimeout": BrokerUnreachableError,
    "AMQPConnectorAborted": BrokerUnreachableError,
    "AMQPConnectorWrongState": BrokerUnreachableError,
    "AMQPConnectorPhaseErrorBase": BrokerUnreachableError,
    "AMQPConnectorSocketConnectError": BrokerUnreachableError,
    "AMQPConnectorTransportSetupError": BrokerUnreachableError,
    "AMQPConnectorAMQPHandshakeError": BrokerUnreachableError,
    "AMQPConnectionWorkflowAborted": BrokerUnreachableError,
    "AMQPConnectionWorkflowWrongState": BrokerUnreachableError,
    "AMQPConnectionWorkflowFailed": BrokerUnreachableError,
    # There was a connection, and it is gone or cannot be used any more.
    "AMQPError": ConnectionLostError,
    "AMQPConnectionError": ConnectionLostError,
    "ConnectionOpenAborted": ConnectionLostError,
    "StreamLostError": ConnectionLostError,
    "NoFreeChannels": ConnectionLostError,
    "ConnectionWrongStateError": ConnectionLostError,
    "ConnectionClosed": ConnectionLostError,
    "ConnectionClosedByBroker": ConnectionLostError,
    "ConnectionClosedByClient": ConnectionLostError,
    "ConnectionBlockedTimeout": ConnectionLostError,
    "AMQPHeartbeatTimeout": ConnectionLostError,
    "AMQPChannelError": ConnectionLostError,
    "ChannelWrongStateError": ConnectionLostError,
    "ChannelClosed": ConnectionLostError,
    "ChannelClosedByBroker": ConnectionLostError,
    "ChannelClosedByClient": ConnectionLostError,
    "DuplicateConsumerTag": ConnectionLostError,
    "ConsumerCancelled": ConnectionLostError,
    "UnroutableError": ConnectionLostError,  # these two only from the blocking adapter, which limetask does not use
    "NackError": ConnectionLostError,
    "InvalidChannelNumber": ConnectionLostError,
    "MethodNotImplemented": ConnectionLostError,
    "ChannelError": ConnectionLostError,
    "ReentrancyError": ConnectionLostError,
    "ShortStringTooLong": ConnectionLostError,
    "DuplicateGetOkCallback": ConnectionLostError,
}


def example_of(kind: type[BaseException]) -> BaseException:
    """An instance as pika makes it."""
    make: Callable[..., BaseException] = kind
    if issubclass(kind, pika_errors.ConnectionClosed | pika_errors.ChannelClosed):
        return make(320, "CONNECTION_FORCED")
    if issubclass(kind, pika_errors.UnroutableError | pika_errors.NackError):
        return make([])
    if issubclass(kind, connection_workflow.AMQPConnectorPhaseErrorBase):
        return make(TimeoutError("timed out"))
    if kind is connection_workflow.AMQPConnectionWorkflowFailed:
        return make([ConnectionRefusedError(111, "Connection refused")])
    return kind()


def opening_failed(phase: type[BaseException], cause: BaseException) -> BaseException:
    """What pika reports when a connection cannot be opened."""
    failed = connection_workflow.AMQPConnectionWorkflowFailed([OSError(), phase(cause)])
    reported: BaseException = pika_errors.AMQPConnectionError(failed)
    return reported


def test_every_class_of_pika_is_considered() -> None:
    """A class that a new pika adds, or takes away, has to be put into the table above, or out of it."""
    assert set(MAPPED) == set(PIKA_CLASSES)


@pytest.mark.parametrize("name", sorted(set(MAPPED) & set(PIKA_CLASSES)))
def test_every_error_of_pika_becomes_ours(name: str) -> None:
    """Each error of pika becomes one of ours, with a message that says something."""
    mapped = map_error(example_of(PIKA_CLASSES[name]), PARAMETERS)
    assert type(mapped) is MAPPED[name]
    assert len(str(mapped)) >= 5


@pytest.mark.parametrize(
    ("error", "kind", "part"),
    [
        (ConnectionRefusedError(111, "Connection refused"), BrokerUnreachableError, "Connection refused"),
        (socket.gaierror(-2, "Name or service not known"), BrokerUnreachableError, "Name or service not known"),
        (TimeoutError(), BrokerUnreachableError, "TimeoutError"),
        (ssl.SSLError(1, "WRONG_VERSION_NUMBER"), BrokerUnreachableError, "WRONG_VERSION_NUMBER"),
        (ssl.SSLCertVerificationError(1, "self-signed"), BrokerRefusedError, "self-signed"),
        (ssl.SSLError(1, "[SSL: TLSV1_ALERT_UNKNOWN_CA] alert"), BrokerRefusedError, "LIMETASK_BROKER_CERTIFICATE"),
        (
            pika_errors.IncompatibleProtocolError("SSLError(1, '[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] alert')"),
            BrokerRefusedError,
            "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        ),
        (pika_errors.ConnectionClosedByBroker(530, "NOT_ALLOWED"), BrokerRefusedError, "NOT_ALLOWED"),
        (pika_errors.ConnectionClosedByBroker(403, "ACCESS_REFUSED"), BrokerRefusedError, "ACCESS_REFUSED"),
        (pika_errors.ConnectionClosedByBroker(320, "CONNECTION_FORCED"), ConnectionLostError, "CONNECTION_FORCED"),
        (pika_errors.ChannelClosedByBroker(403, "ACCESS_REFUSED"), BrokerRefusedError, "ACCESS_REFUSED"),
        (pika_errors.ChannelClosedByBroker(404, "NOT_FOUND"), BrokerRefusedError, "NOT_FOUND"),
        (pika_errors.ChannelClosedByBroker(405, "RESOURCE_LOCKED"), BrokerRefusedError, "RESOURCE_LOCKED"),
        (pika_errors.ChannelClosedByBroker(406, "inequivalent arg"), BrokerRefusedError, "inequivalent arg"),
        (pika_errors.ChannelClosedByBroker(541, "INTERNAL_ERROR"), ConnectionLostError, "INTERNAL_ERROR"),
        (pika_errors.StreamLostError("Connection reset by peer"), ConnectionLostError, "Connection reset by peer"),
        (RuntimeError("anything else"), ConnectionLostError, "anything else"),
        (RuntimeError(), ConnectionLostError, "RuntimeError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_the_message_says_what_the_broker_said(error: BaseException, kind: type[BrokerError], part: str) -> None:
    """By its class and its code an error becomes ours, and what the broker or the system said is in the message."""
    mapped = map_error(error, PARAMETERS)
    assert type(mapped) is kind
    assert part in str(mapped)


@pytest.mark.parametrize(
    ("phase", "cause", "kind"),
    [
        ("SocketConnectError", ConnectionRefusedError(111, "Connection refused"), BrokerUnreachableError),
        ("SocketConnectError", TimeoutError("timed out"), BrokerUnreachableError),
        ("SocketConnectError", connection_workflow.AMQPConnectorStackTimeout("slow"), BrokerUnreachableError),
        ("TransportSetupError", ssl.SSLCertVerificationError(1, "self-signed"), BrokerRefusedError),
        ("AMQPHandshakeError", connection_workflow.AMQPConnectorStackTimeout("slow"), BrokerUnreachableError),
        ("AMQPHandshakeError", pika_errors.IncompatibleProtocolError("no AMQP"), BrokerUnreachableError),
        ("AMQPHandshakeError", pika_errors.ProbableAuthenticationError("refused"), BrokerRefusedError),
        ("AMQPHandshakeError", pika_errors.ProbableAccessDeniedError("refused"), BrokerRefusedError),
        ("AMQPHandshakeError", pika_errors.ConnectionClosedByBroker(530, "NOT_ALLOWED"), BrokerRefusedError),
    ],
)
def test_the_cause_of_a_failed_opening_is_found(phase: str, cause: BaseException, kind: type[BrokerError]) -> None:
    """However deep pika wraps why a connection could not be opened, the innermost cause decides."""
    error = opening_failed(getattr(connection_workflow, f"AMQPConnector{phase}"), cause)
    assert type(map_error(error, PARAMETERS)) is kind


def test_our_own_errors_stay_as_they_are() -> None:
    """An error that is ours already is not wrapped."""
    error = UnroutableError("no queue")
    assert map_error(error, PARAMETERS) is error


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (pika_errors.ProbableAuthenticationError("x"), ["broker.example:5673", "'shop'", "LIMETASK_BROKER_URL"]),
        (
            pika_errors.ProbableAccessDeniedError("x"),
            ["broker.example:5673", "'shop'", "'orders'", "LIMETASK_BROKER_URL"],
        ),
        (ConnectionRefusedError(111, "x"), ["broker.example:5673", "start it", "LIMETASK_BROKER_URL"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_message_says_where_and_what_to_do(error: BaseException, parts: list[str]) -> None:
    """Who cannot connect is told to which address, as whom, and which setting to look at."""
    message = str(map_error(error, PARAMETERS))
    assert all(part in message for part in parts)


@pytest.mark.parametrize("name", sorted(PIKA_CLASSES))
def test_no_message_holds_the_password(name: str) -> None:
    """None of our messages for pika's errors has the password in it."""
    assert PASSWORD not in str(map_error(example_of(PIKA_CLASSES[name]), PARAMETERS))


class TestUrl:
    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("amqp://", ("localhost", 5672, "/", "guest", "guest")),
            ("amqp://broker", ("broker", 5672, "/", "guest", "guest")),
            ("amqp://broker:5673", ("broker", 5673, "/", "guest", "guest")),
            ("amqp://shop:s3cret@broker/orders", ("broker", 5672, "orders", "shop", "s3cret")),
            ("amqp://shop:p%40%2Fss@broker/%2F", ("broker", 5672, "/", "shop", "p@/ss")),
            ("amqp://shop:s3cret@[::1]:5673/", ("::1", 5673, "/", "shop", "s3cret")),
            ("amqps://shop:s3cret@broker/orders", ("broker", 5671, "orders", "shop", "s3cret")),
            ("AMQP://broker", ("broker", 5672, "/", "guest", "guest")),
            ("amqp://guest@broker//", ("broker", 5672, "/", "guest", "guest")),
            ("amqp://shop:s3cret@broker//", ("broker", 5672, "/", "shop", "s3cret")),
            ("amqp://shop:s3cret@broker/prod%2Feu", ("broker", 5672, "prod/eu", "shop", "s3cret")),
            ("amqp://shop:s3@cr:et@broker", ("broker", 5672, "/", "shop", "s3@cr:et")),
            ("amqp://shop:100%@broker", ("broker", 5672, "/", "shop", "100%")),
            ("amqp://sh%40p:@broker/%C3%A4", ("broker", 5672, "ä", "sh@p", "")),
            ("amqp://[::1]", ("::1", 5672, "/", "guest", "guest")),
            ("amqp://[fe80::1%25eth0]:5673/", ("fe80::1%eth0", 5673, "/", "guest", "guest")),
            ("amqp:///orders", ("localhost", 5672, "orders", "guest", "guest")),
            ("amqp:///", ("localhost", 5672, "/", "guest", "guest")),
            ("amqps:///orders", ("localhost", 5671, "orders", "guest", "guest")),
            ("amqp://shop:s3cret@:5673/orders", ("localhost", 5673, "orders", "shop", "s3cret")),
            ("amqp://shop:s3cret@brok_er-1.example.", ("brok_er-1.example.", 5672, "/", "shop", "s3cret")),
            ("amqp://shop:s3cret@bröker", ("bröker", 5672, "/", "shop", "s3cret")),
            ("amqp://shop:10%zz@broker", ("broker", 5672, "/", "shop", "10%zz")),
        ],
    )
    def test_an_amqp_url_is_understood(self, url: str, expected: tuple[Any, ...]) -> None:
        """Host, port, virtual host, user and password are read from the URL, or have RabbitMQ's defaults."""
        parameters = parse_url(url)
        credentials = parameters.credentials
        assert (
            parameters.host,
            parameters.port,
            parameters.virtual_host,
            credentials.username,
            credentials.password,
        ) == expected
        assert (parameters.ssl_options is not None) == url.lower().startswith("amqps")

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "broker",
            "broker:5672",
            "//broker",
            "http://broker",
            "sqlite:///status.db",
            "amqp//broker",
            "amqp://broker:port",
            "amqp://broker:99999",
            "amqp://[",
            "amqp://shop@broker",
            "amqp://broker?nonsense=1",
            "amqp://broker?heartbeat=soon",
            "amqp://broker?ssl_options={",
            "amqp://broker?tcp_options=x",
        ],
    )
    def test_another_text_is_refused(self, url: str) -> None:
        """What is no AMQP URL is refused with an example, when a connection is made and before it is opened."""
        with pytest.raises(BrokerUrlError, match=r"amqp://user:password@host:5672/vhost"):
            parse_url(url)
        with pytest.raises(BrokerUrlError):
            Connection(Settings(broker_url=url), "test")

    @pytest.mark.parametrize(
        ("url", "hint"),
        [
            ("http://broker", "'http'"),
            ("amqp://broker:port", "port"),
            ("amqp://shop@broker", "password"),
            ("pyamqp://broker", "'pyamqp'"),
            ("amqp:broker", "two slashes"),
            ("amqp:/broker", "two slashes"),
            ("amqp://one:5672,two:5672", "several hosts"),
            ("amqp://one:5672,amqp://two:5672", "several hosts"),
            ("amqp://u:p@one:5672;amqp://u:p@two:5672", "several hosts"),
            ("amqp://u:p@one:5672,two:5672/orders", "several hosts"),
            ("amqp://::1", "in brackets"),
            ("amqp://::1:5672/", "in brackets"),
            ("amqp://u:p@fe80::1%25eth0:5672/", "in brackets"),
            ("amqp://broker:0", "port"),
            ("amqp://shop:secret", "the host after user:password are missing"),
            ("amqp://shop:secret:5672/orders", "the host after user:password are missing"),
            ("amqp://u:p%ff@broker", "its password has something percent-encoded that is not utf-8"),
            ("amqp://u%ff:p@broker", "its user has something percent-encoded that is not utf-8"),
            ("amqp://broker/%ff", "its virtual host has something percent-encoded that is not utf-8"),
            ("amqp://u:p@broker/a%00", "its virtual host has a nul"),
            ("amqp://u%00:p@broker", "its user has a nul"),
            ("amqp://u:p%00@broker", "its password has a nul"),
            ("amqp://broker..example", "1 to 63 characters"),
            ("amqp://.broker", "1 to 63 characters"),
            ("amqp://xn--a", "1 to 63 characters"),
            ("amqp://" + "x" * 64, "1 to 63 characters"),
            ("amqp://" + "x." * 127 + "x", "253 at most"),
            ("amqp://bro%20ker", "letters, digits, dots and hyphens"),
            ("amqp://bro*ker", "letters, digits, dots and hyphens"),
            ("amqp://bro\\ker", "letters, digits, dots and hyphens"),
            ("amqp://u:p@${HOST}:5672", "placeholder"),
            ("amqp://u:p@<host>", "placeholder"),
            ("", "limetask_broker_url"),
            ("amqp//broker", "does not start with amqp://"),
            ("amqp://broker/prod/eu", "/prod%2feu"),
            ("amqp://broker//prod", "/prod%2feu"),
            ("amqp://broker/prod/", "after it"),
            ("amqp://broker/" + "x" * 256, "longer than 255 bytes"),
            (" amqp://broker", "a space or a line break"),
            ("amqp://broker\n", "a space or a line break"),
            ("amqp://bro\nker", "a line break"),
            ("amqp://bro ker", "a space in it"),
            ('"amqp://broker"', "quotation marks"),
            ("'amqp://broker'", "quotation marks"),
            ("amqp://broker,other", "several hosts"),
            ("amqp://broker;other", "several hosts"),
            ("amqp://broker#here", "# as %23"),
            ("amqp://broker?heartbeat=30", "limetask_heartbeat"),
            ("amqp://broker?connection_timeout=30", "limetask_connect_timeout"),
            ("amqps://broker?cacertfile=ca.pem", "limetask_broker_ca"),
            ("amqp://broker?frame_max=4096", "takes none"),
            ("amqp://broker?heartbeat", "limetask_heartbeat"),
            ("amqp://broker?nonsense", "takes none"),
            ("amqp://shop:pa/ss@broker", "/ as %2f"),
            ("amqp://shop:1/2@broker", "/ as %2f"),
            ("amqp://shop:1#2@broker", "# as %23"),
            ("amqp://shop:1?2@broker", "? as %3f"),
        ],
    )
    def test_the_refusal_says_what_is_wrong(self, url: str, hint: str) -> None:
        """The message tells, beside the example, which part of the URL is wrong."""
        with pytest.raises(BrokerUrlError) as caught:
            parse_url(url)
        assert hint in str(caught.value).replace("amqp://user:password@host:5672/vhost", "").lower()

    @pytest.mark.parametrize(
        "url",
        [
            "amqp://shop:s3cret/x@broker",
            "amqp://shop:s3cret#x@broker",
            "amqp://shop:s3cret?x@broker",
            "amqp://shop:s3cret@broker:port",
            "amqp://shop:s3cret@broker?nonsense=1",
            "http://shop:s3cret@broker",
            "shop:s3cret@broker",
            "//u:s3cret@broker",
            "amqp://shop:1@s3cret/x@broker",
            "amqp://shop:1#s3cret@broker",
            "amqp://shop:1/s3cret@broker",
            "amqp://shop:1?s3cret@broker",
            "amqp://shop:1?s3cret=1@broker",
            "amqp://shop:x[s3cret@broker",
            "amqp://shop:s3cret@broker/prod/eu",
            "amqp://s3cret/x:y@broker",
            "amqp://shop:s3cret@one,two",
            "'amqp://shop:s3cret@broker'",
            "amqp://shop:s3cret@broker\n",
            "amqp://shop:s3 s3cret@broker",
            "amqp://shop:%ff@s3cret@broker",
            "amqp://shop:1@s3cret@bro..ker",
            "amqp://shop:1@s3cret@one:5672,two:5672",
            "amqp://shop:s3cret",
            "amqp://shop:s3cret:5672",
            "amqp://shop:s3cret@::1",
            "amqp:s3cret@broker",
            "s3cret:x@broker",
            "s3cret://broker",
        ],
    )
    def test_the_refusal_does_not_hold_the_password(self, url: str) -> None:
        """A URL that cannot be read, as with a password that is not percent-encoded, is not shown with its password."""
        with pytest.raises(BrokerUrlError) as caught:
            parse_url(url)
        assert PASSWORD not in str(caught.value)


class TestParameters:
    def test_settings_decide_how_a_connection_behaves(self) -> None:
        """Heartbeat and time limits come from the settings, and one attempt is one attempt."""
        made = connection_parameters(Settings(heartbeat=17, connect_timeout=2.5), "test")
        assert (made.heartbeat, made.socket_timeout, made.stack_timeout) == (17, 2.5, 2.5)
        assert made.connection_attempts == 1
        assert made.blocked_connection_timeout > 0

    def test_a_connection_can_be_told_in_the_brokers_list(self) -> None:
        """The name of a connection tells its purpose, host and process."""
        name = connection_parameters(Settings(), "producer").client_properties["connection_name"]
        assert name == f"limetask producer {socket.gethostname()}:{os.getpid()}"


class TestHiddenPassword:
    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("amqp://shop:s3cret@broker:5673/orders", "amqp://shop:***@broker:5673/orders"),
            ("amqps://shop:s3cret@[::1]:5673/", "amqps://shop:***@[::1]:5673/"),
            ("postgresql://shop:s3cret@host/db?connect_timeout=3", "postgresql://shop:***@host/db?connect_timeout=3"),
            ("amqp://shop:s3@cret@broker", "amqp://shop:***@broker"),
            ("amqp://:s3cret@broker", "amqp://:***@broker"),
            ("amqp://shop@broker", "amqp://shop@broker"),
            ("amqp://broker", "amqp://broker"),
            ("amqp://broker:5672", "amqp://broker:5672"),
            ("amqp://broker:5672/orders", "amqp://broker:5672/orders"),
            ("amqp://one:5672,two:5672", "amqp://one:5672,two:5672"),
            ("amqp://[::1]:5672", "amqp://[::1]:5672"),
            ("amqp://", "amqp://"),
            ("sqlite:////var/lib/status.db", "sqlite:////var/lib/status.db"),
            ("", ""),
        ],
    )
    def test_only_the_password_is_hidden(self, url: str, shown: str) -> None:
        """A URL without its password is otherwise as it was."""
        assert hidden_password(url) == shown

    @pytest.mark.parametrize(
        "url",
        [
            "amqp://shop:s3cret/x@broker",
            "amqp://shop:x/s3cret@broker",
            "amqp://shop:s3cret#x@broker",
            "amqp://shop:s3cret?x@broker",
            "amqp://shop:s3cret@[broker",
            "amqp://sh/op:s3cret@broker",
            "amqp://shop:x\ns3cret@broker",
            "shop:s3cret@broker",
            "amqp://shop:s3cret",
            "amqp://shop:s3cret/orders",
            "amqp://shop:s3cret:5672/orders",
            "amqp://shop:1s3cret",
            "postgresql://host/db?user=shop&password=s3cret",
        ],
    )
    def test_a_password_is_hidden_wherever_it_stands(self, url: str) -> None:
        """Neither a URL that is malformed nor one with the password among its options shows it."""
        assert PASSWORD not in hidden_password(url)
