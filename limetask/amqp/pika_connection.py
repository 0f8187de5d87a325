"""pika's connection, with the frames of messages read and written by us: see `frames`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pika import frame
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.exceptions import InvalidFrameError

from limetask.amqp.frames import (
    BODY,
    FRAME_END,
    FRAME_HEADER,
    FRAME_OVERHEAD_BYTES,
    HEADER,
    METHOD,
    Properties,
    decode_confirm,
    decode_delivery,
    decode_header,
)
from limetask.amqp.transport import LoopServices
from limetask.message import Envelope

OnDelivery = Callable[[bytes, int, bool, bytes, Envelope], None]
"""Gets consumer tag, delivery tag, whether it is redelivered, the exchange's name, and the message."""

OnConfirm = Callable[[int, bool, bool], None]
"""Gets a publish's number, whether all before it are meant too, and whether the broker has taken it."""

_HEADER_BYTES = FRAME_HEADER.size

_Take = Callable[[bytes, int, int], bool]


class PikaConnection(AsyncioConnection):  # type: ignore[misc]
    """An AsyncioConnection that hands deliveries and confirms of one channel to us directly.

    What is written in one turn of the loop goes out together.
    """

    _frame_buffer: bytes

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._unwritten: list[bytes] = []
        self._takers: dict[tuple[int, int], _Take] = {}

    @classmethod
    def create_connection(
        cls,
        connection_configs: Sequence[Any],
        on_done: Callable[[Any], None],
        custom_ioloop: asyncio.AbstractEventLoop | None = None,
        workflow: Any = None,
    ) -> Any:
        """Do what pika's own does, on the loop's transports."""
        services = LoopServices(custom_ioloop)
        return cls._start_connection_workflow(
            connection_configs=connection_configs,
            connection_factory=lambda parameters: cls(
                parameters=parameters, custom_ioloop=services, internal_connection_workflow=False
            ),
            nbio=services,
            workflow=workflow,
            on_done=on_done,
        )

    def hand_over(self, channel_number: int, on_delivery: OnDelivery, on_confirm: OnConfirm) -> None:
        """Hand over the deliveries and the confirms of this channel from now on; pika's channel does not see them."""
        messages = _Messages(on_delivery, on_confirm)
        self._takers = {
            (METHOD, channel_number): messages.take_method,
            (HEADER, channel_number): messages.take_header,
            (BODY, channel_number): messages.take_body,
        }

    def write(self, frames: bytes) -> None:
        """Send frames after all that were sent before."""
        self.bytes_sent += len(frames)
        self._adapter_emit_data(frames)

    def drop(self) -> None:
        """Close the socket at once, for a broker that does not answer."""
        if self._transport is not None:
            self._transport.abort()

    def _adapter_emit_data(self, data: bytes) -> None:
        if not self._unwritten:
            self.ioloop.call_soon(self._flush)
        self._unwritten.append(data)

    def _flush(self) -> None:
        unwritten, self._unwritten = self._unwritten, []
        if self._transport is not None:
            self._transport.write(unwritten[0] if len(unwritten) == 1 else b"".join(unwritten))

    def _on_data_available(self, data_in: bytes) -> None:
        buffer = self._frame_buffer + data_in if self._frame_buffer else data_in
        self.bytes_received += len(data_in)
        begin, available = 0, len(buffer)
        while begin + FRAME_OVERHEAD_BYTES <= available:
            kind, channel_number, size = FRAME_HEADER.unpack_from(buffer, begin)
            end = begin + FRAME_OVERHEAD_BYTES + size
            if end > available:
                break
            if buffer[end - 1] != FRAME_END:
                raise InvalidFrameError("a frame does not end where it should")
            take = self._takers.get((kind, channel_number))
            if take is None or not take(buffer, begin + _HEADER_BYTES, end - 1):
                self._process_frame(frame.decode_frame(buffer[begin:end])[1])
            begin = end
        self._frame_buffer = buffer[begin:]


@dataclass(slots=True)
class _Messages:
    """Puts the messages of one channel together, frame by frame.

    Each `take` gets a frame's payload, between `begin` and `end`, and returns False if it is for pika.
    """

    on_delivery: OnDelivery
    on_confirm: OnConfirm
    _delivery: tuple[bytes, int, bool, bytes] | None = None
    _properties: Properties | None = None
    _missing_bytes: int = 0
    _body: list[bytes] = field(default_factory=list)

    def take_method(self, buffer: bytes, begin: int, _end: int) -> bool:
        self._delivery = decode_delivery(buffer, begin)
        if self._delivery is not None:
            return True
        confirm = decode_confirm(buffer, begin)
        if confirm is None:
            return False
        self.on_confirm(*confirm)
        return True

    def take_header(self, buffer: bytes, begin: int, end: int) -> bool:
        if self._delivery is None:
            return False
        self._missing_bytes, self._properties = decode_header(buffer, begin, end)
        if not self._missing_bytes:
            self._deliver(b"")
        return True

    def take_body(self, buffer: bytes, begin: int, end: int) -> bool:
        if self._delivery is None:
            return False
        part = buffer[begin:end]
        self._missing_bytes -= end - begin
        if self._missing_bytes < 0:
            raise InvalidFrameError("a message has a longer body than its header says")
        if self._missing_bytes:
            self._body.append(part)
        elif self._body:
            body, self._body = b"".join((*self._body, part)), []
            self._deliver(body)
        else:
            self._deliver(part)  # nearly all are as short
        return True

    def _deliver(self, body: bytes) -> None:
        assert self._delivery is not None
        assert self._properties is not None
        content_type, headers, reply_to, message_id, kind = self._properties
        delivery, self._delivery, self._properties = self._delivery, None, None
        self.on_delivery(*delivery, Envelope(body, content_type, message_id, kind, reply_to, headers))
