"""A TCP proxy in front of the broker whose connections can be cut, stalled, delayed and truncated."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Literal
from urllib.parse import urlsplit

from tests.waiting import eventually

Towards = Literal["broker", "client"]


class _Gate:
    """What happens to the bytes that go in one direction."""

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self.is_open.set()
        self.delay = 0.0
        self.truncating = False
        self.held = 0

    def pass_through(self, data: bytes, sink: socket.socket) -> bool:
        """Send some bytes on, as the gate allows; return False if the connection is to end here."""
        if self.delay:
            time.sleep(self.delay)
        if not self.is_open.is_set():
            self.held += len(data)
            self.is_open.wait()
        if self.truncating:
            sink.sendall(data[: len(data) // 2])
            return False
        sink.sendall(data)
        return True


class Proxy:
    """Forwards to `target` until it is told to `cut` or to `refuse`."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._refusing = False
        self._gates: dict[Towards, _Gate] = {"broker": _Gate(), "client": _Gate()}
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def connections(self) -> int:
        """How many connections have been made through it so far."""
        return len(self._pairs)

    @property
    def holds_an_answer(self) -> bool:
        """Whether something of the broker has been held back since the last `stall`."""
        return self._gates["client"].held > 0

    def cut(self) -> None:
        """Close every connection that is open now; new ones are let through."""
        for pair in list(self._pairs):
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def refuse(self, refusing: bool = True) -> None:
        """Let no new connection through, and cut those that are open; or, with False, let them through again."""
        self._refusing = refusing
        if refusing:
            self.cut()

    def stall(self, towards: Towards) -> None:
        """Let nothing more through in one direction, and keep the connections open."""
        self._gates[towards].held = 0
        self._gates[towards].is_open.clear()

    def flow(self) -> None:
        """Let everything through again, at once and whole."""
        for gate in self._gates.values():
            gate.delay = 0.0
            gate.truncating = False
            gate.is_open.set()

    def delay(self, seconds: float) -> None:
        """Hold every piece back for a while, in both directions."""
        for gate in self._gates.values():
            gate.delay = seconds

    def truncate(self, towards: Towards) -> None:
        """End every connection in the middle of the next piece that goes in one direction, until `flow`."""
        self._gates[towards].truncating = True

    def cut_before_answer(self, timeout: float = 10.0) -> None:
        """Cut every connection when the broker has got something from a client and its answer is on the way."""
        self.stall("client")
        eventually(lambda: self.holds_an_answer, timeout, "an answer of the broker")
        self.cut()
        self.flow()  # what was held finds its connection gone

    def close(self) -> None:
        self.flow()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the acceptor
        self._acceptor.join()
        self._listener.close()
        self.cut()
        for pair in self._pairs:
            for end in pair:
                end.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                near.close()
                continue
            far = socket.create_connection(self._target)
            self._pairs.append((near, far))
            for source, sink, gate in ((near, far, self._gates["broker"]), (far, near, self._gates["client"])):
                threading.Thread(target=_pump, args=(source, sink, gate), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket, gate: _Gate) -> None:
    with contextlib.suppress(OSError):
        while (data := source.recv(65536)) and gate.pass_through(data, sink):
            pass
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def proxy_to(broker_url: str) -> Iterator[tuple[Proxy, str]]:
    """Give a proxy in front of a broker, and the URL that leads through it."""
    parts = urlsplit(broker_url)
    proxy = Proxy((parts.hostname or "localhost", parts.port or 5672))
    credentials = parts.netloc.rpartition("@")[0] or "guest:guest"
    try:
        yield proxy, parts._replace(netloc=f"{credentials}@127.0.0.1:{proxy.port}").geturl()
    finally:
        proxy.close()
