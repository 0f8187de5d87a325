"""The ends that a task process could not report for some time, in memory that it shares with its supervisor.

A process that dies in an outage of the broker takes no end with it that waits here: its supervisor reports it.
"""

from __future__ import annotations

import os
import struct
import tempfile
from dataclasses import dataclass

import orjson

from limetask.codec import JSON
from limetask.message import Envelope

# Before each end: whether it waits, and the lengths of its address and of its event in bytes.
_HEADER = struct.Struct("=BII")
_INCOMPLETE, _WAITING, _CONFIRMED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class UnreportedEnd:
    """The end of one attempt at a task: the event, and the routing key under which it is to be published."""

    task_id: str
    attempt: int
    routing_key: str
    envelope: Envelope


class Outbox:
    """The ends of one task process that wait for the broker: it keeps and forgets them, and its supervisor reads."""

    def __init__(self, descriptor: int) -> None:
        """Share the memory of `open_outbox`, which is behind this file descriptor and stays the caller's."""
        self._descriptor = os.dup(descriptor)
        self._size = 0
        self._offsets: dict[tuple[str, int], int] = {}

    @property
    def is_empty(self) -> bool:
        """True while no end waits here."""
        return not self._offsets

    def keep(self, end: UnreportedEnd) -> None:
        """Have an end reported by the supervisor should this process die."""
        if (end.task_id, end.attempt) in self._offsets:
            return
        address = orjson.dumps([end.task_id, end.attempt, end.routing_key, end.envelope.message_id])
        record = _HEADER.pack(_INCOMPLETE, len(address), len(end.envelope.body)) + address + end.envelope.body
        os.pwrite(self._descriptor, record, self._size)
        # The state comes last: whoever looks after a death sees nothing of this end, or all of it.
        os.pwrite(self._descriptor, bytes([_WAITING]), self._size)
        self._offsets[end.task_id, end.attempt] = self._size
        self._size += len(record)

    def replace(self, end: UnreportedEnd) -> None:
        """Have this reported instead of what was kept of the same attempt, if anything was.

        The new one comes first: whoever looks after a death in between finds both, which tell the same event.
        """
        former = self._offsets.pop((end.task_id, end.attempt), None)
        if former is not None:
            self.keep(end)
            os.pwrite(self._descriptor, bytes([_CONFIRMED]), former)

    def forget(self, task_id: str, attempt: int) -> None:
        """Note that the broker has confirmed an end, if it was kept here."""
        offset = self._offsets.pop((task_id, attempt), None)
        if offset is None:
            return
        os.pwrite(self._descriptor, bytes([_CONFIRMED]), offset)
        if not self._offsets:
            os.truncate(self._descriptor, 0)
            self._size = 0

    def read(self) -> list[UnreportedEnd]:
        """Return the ends that still wait; meant for the time after the death of the process that kept them."""
        content = os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0)
        ends, offset = [], 0
        while offset + _HEADER.size <= len(content):
            state, address_bytes, event_bytes = _HEADER.unpack_from(content, offset)
            if state == _INCOMPLETE:
                break
            begin = offset + _HEADER.size
            offset = begin + address_bytes + event_bytes
            if state == _WAITING:
                ends.append(_end(content[begin : begin + address_bytes], content[begin + address_bytes : offset]))
        return ends

    def close(self) -> None:
        os.close(self._descriptor)


def open_outbox() -> int:
    """Return the file descriptor of new memory for the unreported ends of one process."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("limetask-outbox")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _end(address: bytes, event: bytes) -> UnreportedEnd:
    task_id, attempt, routing_key, message_id = orjson.loads(address)
    return UnreportedEnd(task_id, attempt, routing_key, Envelope(event, JSON, message_id, kind="completion"))
