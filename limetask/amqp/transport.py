"""Sockets for pika: the transports of the asyncio loop itself, which read and write more at a time than pika's own."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any

from pika.adapters.asyncio_connection import _AsyncioIOServicesAdapter

from limetask.forks import keep_from_forks
from limetask.threads import look_up


class LoopServices(_AsyncioIOServicesAdapter):  # type: ignore[misc]
    """What pika needs of an asyncio loop. Its streams are the loop's: with uvloop, all of it is compiled code."""

    def connect_socket(
        self, sock: socket.socket, resolved_addr: Any, on_done: Callable[[BaseException | None], None]
    ) -> Any:
        """Connect a socket, as pika does it: no forked process shall hold the connection open."""
        keep_from_forks(sock)
        return super().connect_socket(sock, resolved_addr, on_done)

    def getaddrinfo(
        self,
        host: str,
        port: int,
        on_done: Callable[..., None],
        family: int = 0,
        socktype: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        """Look a host up, in a thread of our own: asyncio's are gone when the main thread has ended."""
        return self._schedule_and_wrap_in_io_ref(look_up(host, port, family, socktype, proto, flags), on_done)

    def create_streaming_connection(
        self,
        protocol_factory: Callable[[], Any],
        sock: socket.socket,
        on_done: Callable[[Any], None],
        ssl_context: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
    ) -> Any:
        """Make a stream of a connected socket, over TLS with an `ssl_context`; pika says what `on_done` gets."""
        stream = _Stream(protocol_factory())

        def on_opened(result: Any) -> None:
            on_done(result)
            stream.tell_loss()

        opening = self._open(stream, sock, ssl_context, server_hostname)
        return self._schedule_and_wrap_in_io_ref(opening, on_opened)

    async def _open(
        self, stream: _Stream, sock: socket.socket, ssl_context: ssl.SSLContext | None, server_hostname: str | None
    ) -> tuple[asyncio.BaseTransport, Any]:
        try:
            transport, _ = await self.get_native_ioloop().create_connection(
                lambda: stream,
                sock=sock,
                ssl=ssl_context,
                server_hostname=server_hostname if ssl_context is not None else None,
            )
        except BaseException:
            sock.close()
            raise
        return transport, stream.pikas_side


class _Stream(asyncio.Protocol):
    """Hands what the loop tells to pika's side of the stream, which is no asyncio protocol, though much alike.

    Pika listens for the loss of a connection only when it has been told of its opening, which the loop does some turns
    later. A connection that is lost in between would be waited for in vain, so until then its loss is kept.
    """

    def __init__(self, pikas_side: Any) -> None:
        self.pikas_side = pikas_side
        self._transport: Any
        self._error: Exception | None = None
        self._is_heard = False
        self._loss: BaseException | None = None
        self._is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.pikas_side.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._error is not None:
            return
        try:
            self.pikas_side.data_received(data)
        except Exception as exc:  # noqa: BLE001 - whatever it is, it ends this connection and nothing else
            self._error = exc
            self._transport.abort()

    def eof_received(self) -> None:
        self.pikas_side.eof_received()
        # Closing would first write what is left to write, to somebody who has hung up.
        self._transport.abort()

    def connection_lost(self, error: BaseException | None) -> None:
        self._is_lost = True
        self._loss = self._error or error
        if self._is_heard:
            self.pikas_side.connection_lost(self._loss)

    def tell_loss(self) -> None:
        """Tell of losses from now on, and of one that has happened before."""
        self._is_heard = True
        if self._is_lost:
            self.pikas_side.connection_lost(self._loss)
