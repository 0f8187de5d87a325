"""The broker's URL: how it is read, and how it is shown."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from typing import Any
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

import pika

from limetask.amqp.tls import check_no_tls_is_meant, tls_context
from limetask.errors import BrokerUrlError
from limetask.settings import Settings, stray_characters

# A publishing connection that an alarm blocks for longer is rebuilt; callers have their own, shorter deadlines.
_BLOCKED_SECONDS = 60.0

_URL_FORM = "broker_url (LIMETASK_BROKER_URL) must look like amqp://user:password@host:5672/vhost"
_ENCODE = (
    "Special characters in user, password and virtual host must be percent-encoded, such as @ as %40, / as %2F, "
    "# as %23, ? as %3F, : as %3A and % as %25; Python's urllib.parse.quote(password, safe='') does it"
)
_OTHER_SCHEMES = frozenset({"http", "https", "pyamqp", "librabbitmq", "rabbitmq", "redis", "rediss", "sqs", "stomp"})
_OTHER_SCHEMES |= {"mqtt", "mqtts", "ws", "wss", "tcp", "memory", "sqlite", "postgres", "postgresql", "kafka", "nats"}
_TLS_SETTINGS = "amqps:// with LIMETASK_BROKER_CA, LIMETASK_BROKER_CERTIFICATE and LIMETASK_BROKER_KEY"
# What pika, aio-pika, kombu and the URI specification of RabbitMQ know.
_SETTINGS_FOR_OPTIONS = {
    "heartbeat": "LIMETASK_HEARTBEAT",
    **dict.fromkeys(
        ("connection_timeout", "connect_timeout", "socket_timeout", "stack_timeout", "timeout"),
        "LIMETASK_CONNECT_TIMEOUT",
    ),
    **dict.fromkeys(
        ("ssl", "ssl_options", "ssl_cert_reqs", "verify", "no_verify_ssl", "cafile", "capath", "cacertfile"),
        _TLS_SETTINGS,
    ),
    **dict.fromkeys(("certfile", "keyfile", "server_name_indication"), _TLS_SETTINGS),
}
_DEFAULT_USER = "guest"
_MAX_VIRTUAL_HOST_BYTES = 255
_MAX_HOST_CHARACTERS = 253
# Letters of any alphabet, for hosts whose names are not in English.
_HOST = re.compile(r"[\w.-]+")
_SEVERAL_URLS = re.compile(r"[,;]\s*amqps?://", re.IGNORECASE)
_SEVERAL_HOSTS = "it names several hosts, and limetask takes one: a name or a load balancer that leads to all"


def connection_parameters(settings: Settings, purpose: str) -> Any:
    """Return pika's parameters for a connection with these settings; raises ConfigurationError if they are wrong."""
    parameters = parse_url(settings.broker_url)
    parameters.ssl_options = _tls_options(settings, parameters)
    parameters.heartbeat = settings.heartbeat
    parameters.socket_timeout = settings.connect_timeout
    parameters.stack_timeout = settings.connect_timeout
    parameters.blocked_connection_timeout = _BLOCKED_SECONDS
    parameters.connection_attempts = 1
    parameters.client_properties = {
        "connection_name": f"limetask {purpose} {socket.gethostname()}:{os.getpid()}",
        "product": "limetask",
    }
    return parameters


def _tls_options(settings: Settings, parameters: Any) -> Any:
    if parameters.ssl_options is None:
        check_no_tls_is_meant(settings)
        return None
    return pika.SSLOptions(tls_context(settings), parameters.host)


def parse_url(url: str) -> Any:
    """Return pika's connection parameters.

    Raises BrokerUrlError, which shows nothing of the URL but a known scheme: it has a password, and where that begins
    and ends cannot be known when it is not percent-encoded.
    """
    stray = stray_characters(url)
    if stray:
        raise _wrong(stray)
    if " " in url:
        raise _wrong(f"it has a space in it. {_ENCODE}")
    if _SEVERAL_URLS.search(url):
        raise _wrong(_SEVERAL_HOSTS)
    try:
        parts = urlsplit(url)
        _check_scheme(parts, url)
        _check_special_characters(parts)
        _check_query(parts)
        return pika.URLParameters(_canonical(parts))
    except (ValueError, TypeError, AttributeError, SyntaxError):
        # Without the cause, whose text may hold the password.
        raise _wrong(f"it cannot be read. {_ENCODE}") from None


def _wrong(reason: str) -> BrokerUrlError:
    return BrokerUrlError(f"{_URL_FORM}: {reason}")


def _check_scheme(parts: SplitResult, url: str) -> None:
    if parts.scheme in _OTHER_SCHEMES:
        raise _wrong(f"it starts with {parts.scheme!r}, and must start with amqp:// or, for TLS, amqps://")
    if parts.scheme not in ("amqp", "amqps"):
        raise _wrong("it does not start with amqp:// or, for TLS, amqps://")
    if not url[len(parts.scheme) + 1 :].startswith("//") and (parts.path or parts.query or parts.fragment):
        raise _wrong("two slashes must come after amqp:")


def _check_special_characters(parts: SplitResult) -> None:
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        raise _wrong(f"an @ comes after a /, ? or #. {_ENCODE}")
    if parts.fragment:
        raise _wrong(f"it has a #. {_ENCODE}")


def _check_query(parts: SplitResult) -> None:
    for name in parse_qs(parts.query, keep_blank_values=True):
        if name in _SETTINGS_FOR_OPTIONS:
            raise _wrong(f"it has the option {name}, for which there is a setting: {_SETTINGS_FOR_OPTIONS[name]}")
    if parts.query:
        raise _wrong("it has an option after a ?, and the broker's URL takes none: there are settings for all of them")


def _canonical(parts: SplitResult) -> str:
    """Return the URL with everything in it that may be left out, and nothing in it that can be misread."""
    user, password = _credentials(parts)
    address = f"{quote(user, safe='')}:{quote(password, safe='')}@{_address(parts)}"
    return f"{parts.scheme}://{address}/{quote(_virtual_host(parts.path), safe='')}"


def _credentials(parts: SplitResult) -> tuple[str, str]:
    user, password = parts.username or "", parts.password
    if not user and password is None:
        return _DEFAULT_USER, _DEFAULT_USER
    if password is None and user != _DEFAULT_USER:
        raise _wrong("it has a user without a password")
    password = _DEFAULT_USER if password is None else password
    return _decoded(user, "user"), _decoded(password, "password")


def _decoded(text: str, what: str) -> str:
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        # Without the cause, whose text holds the password.
        raise _wrong(
            f"its {what} has something percent-encoded that is not UTF-8: a % that belongs to it is written %25"
        ) from None
    if "\0" in decoded:
        raise _wrong(f"its {what} has a NUL character in it")
    return decoded


def _address(parts: SplitResult) -> str:
    address = parts.netloc.rpartition("@")[2]
    _check_address(address)
    host = parts.hostname or "localhost"
    shown = f"[{unquote(host)}]" if ":" in host else _checked_host(host)
    port = _port(parts)
    return shown if port is None else f"{shown}:{port}"


def _check_address(address: str) -> None:
    if set(",;") & set(address):
        raise _wrong(_SEVERAL_HOSTS)
    if "[" not in address and (_is_ipv6(address) or _is_ipv6(address.rpartition(":")[0])):
        raise _wrong("an address of IPv6 is written in brackets, as in amqp://[::1]:5672")


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(unquote(text))
    except ValueError:
        return False
    return True


def _checked_host(host: str) -> str:
    if set("${}<>") & set(host):
        raise _wrong("its host has a placeholder in it, such as ${HOST}, that nobody has replaced")
    try:
        host.encode("idna").decode("idna")  # also back, as libraries do with what is encoded already
    except UnicodeError:
        raise _wrong("its host is not a name: it has 1 to 63 characters between its dots") from None
    if not _HOST.fullmatch(host) or len(host) > _MAX_HOST_CHARACTERS:
        raise _wrong(
            f"its host is not a name: it has letters, digits, dots and hyphens, {_MAX_HOST_CHARACTERS} at most"
        )
    return host


def _port(parts: SplitResult) -> int | None:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        lost_host = "" if "@" in parts.netloc else ", or the @ and the host after user:password are missing"
        raise _wrong(f"its port is not a number from 1 to 65535{lost_host}. {_ENCODE}")
    return port


def _virtual_host(path: str) -> str:
    if path in ("", "/", "//"):  # Celery writes two slashes for the virtual host /
        return "/"
    name = path[1:]
    if "/" in name:
        raise _wrong(
            "its virtual host has a / in it or after it: one that belongs to the name is written %2F, as in /prod%2Feu "
            "for the virtual host prod/eu"
        )
    virtual_host = _decoded(name, "virtual host")
    if len(virtual_host.encode()) > _MAX_VIRTUAL_HOST_BYTES:
        raise _wrong(f"its virtual host is longer than {_MAX_VIRTUAL_HOST_BYTES} bytes")
    return virtual_host


def address_of(parameters: Any) -> str:
    """Return host and port, for messages."""
    return f"{parameters.host}:{parameters.port}"
