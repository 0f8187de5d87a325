"""The broker's URL: how it is read, and how it is shown."""

from __future__ import annotations

import os
import socket
from typing import Any
from urllib.parse import SplitResult, urlsplit

import pika

from limetask.amqp.tls import check_no_tls_is_meant, tls_context
from limetask.errors import BrokerUrlError
from limetask.settings import Settings

# A publishing connection that an alarm blocks for longer is rebuilt; callers have their own, shorter deadlines.
_BLOCKED_SECONDS = 60.0

_URL_FORM = "the broker's URL must look like amqp://user:password@host:5672/vhost"


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
    """Return pika's connection parameters. Raises BrokerUrlError, which does not show the URL: it has a password."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("amqp", "amqps"):
            raise BrokerUrlError(f"{_URL_FORM}: it starts with {parts.scheme!r}")
        if parts.username and parts.password is None:
            raise BrokerUrlError(f"{_URL_FORM}: it has a user without a password")
        if "ssl_options" in parts.query:
            raise BrokerUrlError(f"{_URL_FORM}, without ssl_options: TLS has settings, such as LIMETASK_BROKER_CA")
        _check_port(parts)
        return pika.URLParameters(url)
    except (ValueError, TypeError, AttributeError, SyntaxError):
        # Without the cause, whose text may hold the password.
        raise BrokerUrlError(f"{_URL_FORM}, with special characters percent-encoded") from None


def _check_port(parts: SplitResult) -> None:
    try:
        _ = parts.port
    except ValueError:
        raise BrokerUrlError(f"{_URL_FORM}, with special characters percent-encoded: its port is no number") from None


def address_of(parameters: Any) -> str:
    """Return host and port, for messages."""
    return f"{parameters.host}:{parameters.port}"
