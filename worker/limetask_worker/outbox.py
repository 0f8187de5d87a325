"""The ends that the broker has not confirmed and that are too large for a mark, in memory shared with the supervisor.

A process that dies takes no end with it that waits here: its supervisor reports it.
"""

from __future__ import annotations

import errno
import os
import struct
import tempfile

# Before each event: whether it waits, how many bytes its place has, and how many of these are its own.
_HEADER = struct.Struct("=cII")
_FREE, _WAITING = b"\0", b"\1"
# Places have sizes of two to some power, this one at least: what is free soon fits again.
_FEWEST_BYTES = 4096


class Outbox:
    """The events of ends of one task process: it keeps and forgets them, and its supervisor reads."""

    def __init__(self, descriptor: int) -> None:
        """Share the memory of `open_outbox`, which is behind this file descriptor and stays the caller's."""
        self._descriptor = os.dup(descriptor)
        self._size = 0
        self._places: dict[tuple[str, int], tuple[int, int]] = {}
        self._free: dict[int, list[int]] = {}

    @property
    def is_empty(self) -> bool:
        """True while no end waits here."""
        return not self._places

    def keep(self, key: tuple[str, int], event: bytes) -> None:
        """Have the event of an end reported by the supervisor should this process die.

        It replaces what was kept for `key`, a task's id and attempt. The new one comes first: whoever looks after a
        death in between finds both, which are of the same end. Raises OSError if there is no room for it.
        """
        room = max(_FEWEST_BYTES, 1 << (len(event) - 1).bit_length())
        offset = self._place(room)
        self._write(_HEADER.pack(_FREE, room, len(event)) + event, offset)
        # The state comes last: whoever looks after a death sees nothing of this end, or all of it.
        self._write(_WAITING, offset)
        former = self._places.get(key)
        self._places[key] = offset, room
        if former is not None:
            self._free_place(*former)

    def forget(self, key: tuple[str, int]) -> None:
        """Note that the broker has confirmed an end, if it was kept here."""
        place = self._places.pop(key, None)
        if place is not None:
            self._free_place(*place)
        if not self._places:
            self._give_memory_back()

    def read(self) -> list[bytes]:
        """Return the events that still wait; meant for the time after the death of the process that kept them."""
        size = os.fstat(self._descriptor).st_size
        events, offset = [], 0
        while offset + _HEADER.size <= size:
            state, room, length = _HEADER.unpack(os.pread(self._descriptor, _HEADER.size, offset))
            begin = offset + _HEADER.size
            if state == _WAITING:
                events.append(os.pread(self._descriptor, length, begin))
            offset = begin + room
        return events

    def close(self) -> None:
        os.close(self._descriptor)

    def _free_place(self, offset: int, room: int) -> None:
        self._write(_FREE, offset)
        self._free.setdefault(room, []).append(offset)

    def _give_memory_back(self) -> None:
        os.truncate(self._descriptor, 0)
        self._size = 0
        self._free.clear()

    def _place(self, room: int) -> int:
        """Return where a free place of this size begins, made at the end if there is none."""
        free = self._free.get(room)
        if free:
            return free.pop()
        offset = self._size
        self._write(_HEADER.pack(_FREE, room, 0), offset)
        self._size += _HEADER.size + room
        return offset

    def _write(self, content: bytes, offset: int) -> None:
        written = os.pwrite(self._descriptor, content, offset)
        if written < len(content):  # a full disk, or a limit: the next write would raise
            raise OSError(errno.ENOSPC, f"only {written} of {len(content)} bytes could be written")


def open_outbox() -> int:
    """Return the file descriptor of new memory for the unreported ends of one process."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("limetask-outbox")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
