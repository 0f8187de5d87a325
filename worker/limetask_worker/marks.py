"""What a task process has in hand, in memory that it shares with its supervisor.

A dead process tells nothing any more; its marks do: tasks that had begun are lost with it unless their end is noted,
tasks that it only held run elsewhere. The marks of a living process tell which of its recorded starts still await their
end.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import time
import uuid
from dataclasses import dataclass

from limetask import ids

_SLOTS = 4096
_FREE, _HELD, _BEGUN = 0, 1, 2
# State, attempt, task id, how many bytes the event of its end has, 0 for none, deadline (of time.monotonic, which all
# processes of a machine share) and time limit, both in seconds, 0 for none.
_SLOT = struct.Struct("=B3xI16sI4xdd")
_END_BYTES = struct.Struct("=I")
_DEADLINE = struct.Struct("=d")
_LIMITS = struct.Struct("=dd")
_LIMITS_OFFSET = _SLOT.size - _LIMITS.size
_END_BYTES_OFFSET = _LIMITS_OFFSET - 8
# In the place before the first slot: whether there were ever more tasks than slots.
_ENDS_OFFSET = (_SLOTS + 1) * _SLOT.size
# For each slot, behind all of them: room for the event of an end. Most have less than half of it.
_MOST_END_BYTES = 1024
_MEMORY_BYTES = _ENDS_OFFSET + (_SLOTS + 1) * _MOST_END_BYTES


@dataclass(frozen=True, slots=True)
class Held:
    """A task that a process has in hand: from just before its start is recorded until its end is confirmed.

    `has_begun` is true from the moment at which its body begins. `exceeded` is its time limit in seconds, if its body
    runs for longer than that and its process has not cut it off.
    """

    task_id: str
    attempt: int
    has_begun: bool
    exceeded: float | None = None


class Mark:
    """The mark of one task. Its process sets and clears it, on any thread; `release` belongs to the main one."""

    __slots__ = ("_free", "_memory", "_offset")

    def __init__(
        self, memory: mmap.mmap | bytearray | None = None, offset: int = 0, free: list[int] | None = None
    ) -> None:
        """Without shared memory it marks the task for this process alone. `free` gets the offset back."""
        self._memory = bytearray(_SLOT.size) if memory is None else memory
        self._offset = offset
        self._free = free

    @property
    def has_begun(self) -> bool:
        return self._memory[self._offset] == _BEGUN

    def begin(self, time_limit: float | None = None) -> None:
        """Say that the body begins, which may take `time_limit` seconds."""
        if time_limit is not None:
            deadline = time.monotonic() + time_limit
            _LIMITS.pack_into(self._memory, self._offset + _LIMITS_OFFSET, deadline, time_limit)
        self._memory[self._offset] = _BEGUN

    def lift_time_limit(self) -> None:
        """Say that the time limit does not matter any more: the body has ended, or has been cut off.

        The task may stay in hand for long after that: until its end is confirmed.
        """
        if self._free is not None:  # else the place may be another task's by now
            _DEADLINE.pack_into(self._memory, self._offset + _LIMITS_OFFSET, 0.0)

    def note_end(self, event: bytes) -> bool:
        """Have the supervisor find the event of the task's end; return False if there is no room for it here."""
        if self._free is None or len(event) > _MOST_END_BYTES:
            return False
        begin = _ENDS_OFFSET + self._offset // _SLOT.size * _MOST_END_BYTES
        self._memory[begin : begin + len(event)] = event
        # The length comes last: whoever looks meanwhile sees no event, or all of it.
        _END_BYTES.pack_into(self._memory, self._offset + _END_BYTES_OFFSET, len(event))
        return True

    def forget_end(self) -> None:
        """Have the supervisor find no event of an end here."""
        if self._free is not None:
            _END_BYTES.pack_into(self._memory, self._offset + _END_BYTES_OFFSET, 0)

    def release(self) -> None:
        """Say that the task is out of hand: its end is confirmed, or its message is somebody else's."""
        if self._free is not None:
            self._memory[self._offset] = _FREE
            self._free.append(self._offset)
            self._free = None


class Marks:
    """The marks of one task process: it holds tasks, and its supervisor reads."""

    def __init__(self, descriptor: int) -> None:
        """Share the memory of `open_memory`, which is behind this file descriptor."""
        self._memory = mmap.mmap(descriptor, _MEMORY_BYTES)
        self._free = [number * _SLOT.size for number in range(_SLOTS, 0, -1)]

    def hold(self, task_id: str, attempt: int) -> Mark:
        """Mark a task as being in hand here."""
        if not self._free:
            self._memory[0] = True
            return Mark()
        offset = self._free.pop()
        # The state comes last: whoever looks meanwhile sees nothing, or all of it.
        _SLOT.pack_into(self._memory, offset, _FREE, attempt, ids.bytes_of(task_id), 0, 0.0, 0.0)
        self._memory[offset] = _HELD
        return Mark(self._memory, offset, self._free)

    def read(self, grace: float = 0.0) -> list[Held] | None:
        """Return what the process has in hand; None if it had too much at a time to tell.

        A time limit counts as exceeded `grace` seconds after it is over.
        """
        if self._memory[0]:
            return None
        latest = time.monotonic() - grace
        slots = _SLOT.iter_unpack(self._memory[_SLOT.size : _ENDS_OFFSET])
        return [_held(slot, latest) for slot in slots if slot[0] != _FREE]

    def ends(self) -> list[bytes]:
        """Return the events of the ends that are noted and not confirmed."""
        slots = enumerate(_SLOT.iter_unpack(self._memory[_SLOT.size : _ENDS_OFFSET]), 1)
        return [
            self._end_of(number, length) for number, (state, _, _, length, *_) in slots if state != _FREE and length
        ]

    def _end_of(self, number: int, length: int) -> bytes:
        begin = _ENDS_OFFSET + number * _MOST_END_BYTES
        return self._memory[begin : begin + length]

    def close(self) -> None:
        self._memory.close()


def open_memory() -> int:
    """Return the file descriptor of new memory for the marks of one process."""
    # Where it is to be had, memory that is no file: a full disk cannot make writing to it fail.
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("limetask-marks")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, _MEMORY_BYTES)
    return descriptor


def _held(slot: tuple[int, int, bytes, int, float, float], latest: float) -> Held:
    state, attempt, task_id, _, deadline, time_limit = slot
    has_begun = state == _BEGUN
    exceeded = has_begun and 0.0 < deadline < latest
    return Held(str(uuid.UUID(bytes=task_id)), attempt, has_begun, time_limit if exceeded else None)
