"""The broker's URL: how it is read, and how it is shown."""

from __future__ import annotations

import os
import socket
from typing import Any
from urllib.parse import urlsplit

import pika

from limetask.errors import BrokerUrlError
from limetask.settings import Settings

# A publishing connection that an alarm blocks for longer is rebuilt; callers have their own, shorter deadlines.
_BLOCKED_SECONDS = 60.0


def hidden_password(url: str) -> str:
    """Return a URL without its password, for messages and logs."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{parts.username}:***@{host}").geturl()


def connection_parameters(settings: Settings, purpose: str) -> Any:
    parameters = parse_url(settings.broker_url)
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


def parse_url(url: str) -> Any:
    example = "amqp://user:password@host:5672/vhost"
    try:
        scheme = urlsplit(url).scheme
        if scheme not in ("amqp", "amqps"):
            raise BrokerUrlError(f"the broker's URL must look like {example}: it starts with {scheme or url[:10]!r}")
        return pika.URLParameters(url)
    except (ValueError, TypeError, AttributeError) as exc:
        raise BrokerUrlError(
            f"the broker's URL must look like {example} (percent-encode special characters): {exc}"
        ) from exc


def address_of(parameters: Any) -> str:
    """Return host and port, for messages."""
    return f"{parameters.host}:{parameters.port}"
