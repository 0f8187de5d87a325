"""What supervisor and child processes tell each other, over a socket pair: one JSON object a line."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from limetask.codec import valid_text
from limetask.topology import QoS
from limetask_worker.logs import LogFormat

# One line holds the names of all tasks, or a traceback.
_LINE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ChildOptions:
    """All that a child process is told at its start; settings it reads from the environment itself.

    `worker` names the process and is never used twice. With `must_be_needed` it is an error if `packages` have nothing
    for it. `slots` is how many tasks run at a time, `grace` how many
    seconds they get to end when the process is stopped. After `max_tasks`, or with more than `max_memory_bytes`, it
    makes room for another.
    """

    worker: str
    packages: tuple[str, ...] = ()
    queues: tuple[QoS, ...] = ()
    slots: int = 8
    grace: float = 30.0
    max_tasks: int | None = None
    max_memory_bytes: int | None = None
    log_format: LogFormat = "text"
    log_level: str = "info"
    must_be_needed: bool = True


@dataclass(frozen=True, slots=True)
class Ready:
    """A child is at work; `facts` are for the banner."""

    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """A child cannot start, by what users' code or a setting does. When a worker begins, another could not either."""

    reason: str


@dataclass(frozen=True, slots=True)
class Needless:
    """A child has nothing to do, and ends; another would have nothing to do either."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A child got the signal to stop, and leaves it to its supervisor whether it does."""


@dataclass(frozen=True, slots=True)
class Done:
    """A child ends with its work done. One that ends without this word has been ended by something else."""


Report = Ready | Needless | Failed | Asked | Done


class _Line(asyncio.StreamReaderProtocol):
    """Takes a line that breaks, as when the other side is written to and has just ended, for one that has ended."""

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(None if isinstance(error, ConnectionError) else error)


class Control:
    """One end of the socket pair."""

    def __init__(self, end: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._end = end
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, end: socket.socket) -> Control:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_LINE_BYTES, loop=loop)
        transport, protocol = await loop.create_connection(lambda: _Line(reader, loop=loop), sock=end)
        return cls(end, reader, asyncio.StreamWriter(transport, protocol, reader, loop))

    def send(self, fields: Mapping[str, Any]) -> None:
        """Send anything that JSON can express."""
        self._writer.write(orjson.dumps(fields) + b"\n")

    async def receive(self) -> dict[str, Any] | None:
        """Return what the other side sends next, None when it is gone."""
        line = await self._reader.readline()
        return orjson.loads(line) if line else None

    def send_options(self, options: ChildOptions) -> None:
        self.send(asdict(options))

    async def receive_options(self) -> ChildOptions:
        fields = orjson.loads(await self._reader.readline())
        return ChildOptions(**(fields | {name: tuple(fields[name]) for name in ("packages", "queues")}))

    def send_ready(self, facts: Mapping[str, Any]) -> None:
        self.send({"ready": facts})

    def send_needless(self) -> None:
        self.send({"needless": True})

    def send_failed(self, reason: str) -> None:
        self.send({"failed": valid_text(reason)})

    def send_asked(self) -> None:
        self.send({"asked": True})

    def send_done(self) -> None:
        self.send({"done": True})

    async def receive_report(self) -> Report | None:
        """Return what the child tells next, None when it has ended."""
        match await self.receive():
            case None:
                return None
            case {"needless": _}:
                return Needless()
            case {"asked": _}:
                return Asked()
            case {"done": _}:
                return Done()
            case {"failed": reason}:
                return Failed(reason)
            case fields:
                return Ready(fields["ready"])

    def send_stop(self) -> None:
        """Ask a child to stop, who may have ended just now: its last reports can still be received."""
        if self._writer.is_closing():
            return
        if self._writer.transport.get_write_buffer_size():
            self.send({"stop": True})
            return
        # Not by the transport: if nobody is there any more, it would end without reading what is here already.
        try:
            self._end.send(orjson.dumps({"stop": True}) + b"\n")
        except ConnectionError:
            return
        except OSError:  # the child has not read for long, and will find this behind all the rest; or memory is short
            self.send({"stop": True})

    async def stop_requested(self) -> None:
        """Return when the supervisor asks the child to stop, or is gone."""
        await self.receive()

    async def flush(self) -> None:
        """Return when all is on its way to the other side, or that is gone."""
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    def close(self) -> None:
        self._writer.close()
