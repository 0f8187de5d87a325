"""Sockets for aiormq: its own need asyncio's resolver, and drop what a broker says when it refuses a connection."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Any

import pamqp.frame
from aiormq import TransportFactory, spec
from aiormq.exceptions import AMQPConnectionError
from yarl import URL

from limetask.forks import keep_from_forks
from limetask.threads import look_up

_MAX_KEPT_BYTES = 4096


class Transport(TransportFactory):
    """Connects to the first address of a host that answers, over TLS with a context."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._reader: _Reader | None = None

    async def create(self, url: URL, **_: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return the streams of a new connection. Raises AMQPConnectionError, as aiormq's own do."""
        try:
            found = await look_up(url.host or "", url.port or 0, 0, socket.SOCK_STREAM)
            return await self._connect(found, url)
        except OSError as exc:
            raise AMQPConnectionError(*exc.args) from exc

    def refusal(self) -> spec.Connection.Close | None:
        """Return what the broker said if it closed the connection instead of opening the virtual host."""
        return self._reader.close_frame() if self._reader is not None else None

    async def _connect(self, found: list[Any], url: URL) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for address in found[:-1]:
            with contextlib.suppress(OSError):
                return await self._connect_to(address, url)
        return await self._connect_to(found[-1], url)

    async def _connect_to(self, address: Any, url: URL) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        reader = self._reader = _Reader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        sock = await _connected_socket(address)
        try:
            transport, _ = await loop.create_connection(
                lambda: protocol,
                sock=sock,
                ssl=self._context,
                server_hostname=url.host if self._context is not None else None,
            )
        except BaseException:
            sock.close()
            raise
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def _connected_socket(address: Any) -> socket.socket:
    """Return a socket that is connected to an address as `socket.getaddrinfo` gives it.

    Asyncio's own would stay open in forked processes.
    """
    family, kind, protocol, _, where = address
    sock = socket.socket(family, kind, protocol)
    keep_from_forks(sock)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, where)
    except BaseException:
        sock.close()
        raise
    return sock


class _Reader(asyncio.StreamReader):
    """Keeps the first bytes of what it reads, with which a broker answers who connects."""

    _kept = b""

    def feed_data(self, data: Any) -> None:
        if len(self._kept) < _MAX_KEPT_BYTES:
            self._kept += data[:_MAX_KEPT_BYTES]
        super().feed_data(data)

    def close_frame(self) -> spec.Connection.Close | None:
        rest = self._kept
        while rest:
            try:
                length, _, frame = pamqp.frame.unmarshal(rest)
            except Exception:  # noqa: BLE001 - it is only asked what to tell of a connection that has failed
                return None
            if isinstance(frame, spec.Connection.Close):
                return frame
            rest = rest[length:]
        return None
