"""Sockets for pika: the transports of the asyncio loop itself, which read and write more at a time than pika's own."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any

from pika.adapters.asyncio_connection import _AsyncioIOServicesAdapter


class LoopServices(_AsyncioIOServicesAdapter):  # type: ignore[misc]
    """What pika needs of an asyncio loop. Its streams are the loop's: with uvloop, all of it is compiled code."""

    def create_streaming_connection(
        self,
        protocol_factory: Callable[[], Any],
        sock: socket.socket,
        on_done: Callable[[Any], None],
        ssl_context: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
    ) -> Any:
        """Make a stream of a connected socket, over TLS with an `ssl_context`; pika says what `on_done` gets."""
        opening = self._open(protocol_factory(), sock, ssl_context, server_hostname)
        return self._schedule_and_wrap_in_io_ref(opening, on_done)

    async def _open(
        self, stream: Any, sock: socket.socket, ssl_context: ssl.SSLContext | None, server_hostname: str | None
    ) -> tuple[asyncio.BaseTransport, Any]:
        try:
            transport, _ = await self.get_native_ioloop().create_connection(
                lambda: _Stream(stream),
                sock=sock,
                ssl=ssl_context,
                server_hostname=server_hostname if ssl_context is not None else None,
            )
        except BaseException:
            sock.close()
            raise
        return transport, stream


class _Stream(asyncio.Protocol):
    """Hands what the loop tells to pika's side of the stream, which is no asyncio protocol, though much alike."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._transport: Any
        self._error: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._stream.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._error is not None:
            return
        try:
            self._stream.data_received(data)
        except Exception as exc:  # noqa: BLE001 - whatever it is, it ends this connection and nothing else
            self._error = exc
            self._transport.abort()

    def eof_received(self) -> None:
        self._stream.eof_received()
        # Closing would first write what is left to write, to somebody who has hung up.
        self._transport.abort()

    def connection_lost(self, error: BaseException | None) -> None:
        self._stream.connection_lost(self._error or error)
