"""The interface that all systems have: what they are, how their worker is started, and how their client is made."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from benchmarks.place import Place

TASKS = ("noop", "sleep_1_ms", "sleep_10_ms")
"""What every system's application declares."""


class Sender(Protocol):
    """Sends a system's tasks, in a process that has nothing else to do.

    A handle is whatever the system gives for a task that was sent. Each call takes the loop as well, so that a system
    with an event loop need not enter it for each task.
    """

    def send_each(self, task: str, arguments: Sequence[str]) -> list[Any]:
        """Send one by one: the next when the broker has confirmed the last. Return the handles."""

    def send_many(self, task: str, arguments: Sequence[str]) -> list[Any]:
        """Send in the fastest way that the system documents, and return the handles once all are confirmed."""

    def close(self) -> None:
        """Close the connections."""


class Client(Sender, Protocol):
    """Reads the ends of the tasks that it has sent, too."""

    def round_trips(self, task: str, arguments: Sequence[str]) -> list[float]:
        """Send one by one, the next when the end of the last is known; return the seconds that each took."""

    def read_each(self, handles: Sequence[Any]) -> list[float]:
        """Read the ends of tasks that have ended, one by one; return the seconds that each took."""


class BlockingClient(ABC):
    """The loops of a client whose calls block; a system adds the calls."""

    @abstractmethod
    def send(self, task: str, argument: str) -> Any:
        """Send one task, and return its handle."""

    @abstractmethod
    def wait(self, handle: Any) -> None:
        """Return when the end of a task is known."""

    @abstractmethod
    def read(self, handle: Any) -> None:
        """Read the end of a task that has ended, and fail if it is not known."""

    @abstractmethod
    def close(self) -> None:
        """See Client."""

    def send_each(self, task: str, arguments: Sequence[str]) -> list[Any]:
        """See Client."""
        return [self.send(task, argument) for argument in arguments]

    def send_many(self, task: str, arguments: Sequence[str]) -> list[Any]:
        """See Client; what a system without a way of its own can do."""
        return self.send_each(task, arguments)

    def round_trips(self, task: str, arguments: Sequence[str]) -> list[float]:
        """See Client."""
        return [_seconds(lambda argument=argument: self.wait(self.send(task, argument))) for argument in arguments]  # type: ignore[misc]

    def read_each(self, handles: Sequence[Any]) -> list[float]:
        """See Client."""
        return [_seconds(lambda handle=handle: self.read(handle)) for handle in handles]  # type: ignore[misc]


def _seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


@dataclass(frozen=True)
class System:
    """One row of the tables."""

    name: str
    """What the command line calls it."""
    title: str
    packages: tuple[str, ...]
    """The distributions that it consists of, for their versions."""
    module: str
    """What a program imports that uses it."""
    results: str
    """Where ends are kept: postgresql, sqlite, redis or none; drained if they are only counted."""
    notes: dict[str, str]
    """Settings that matter and what it does for them, for the table of settings."""
    make_client: Callable[[Place], Sender]
    """For a system that tells ends, what is made is a Client."""
    command: Callable[[int], Sequence[str | Path]]
    """The worker's command line for a number of processes."""
    make_tables: Callable[[Place], None] | None = None
    """What an installation does once in an empty database, before the first worker; None if there is nothing to do."""
    environment: dict[str, str] = field(default_factory=dict)
    slots: int | None = None
    """How many tasks a process runs at a time, None if that has no limit."""
    recorder: str = ""
    """What only the recorder has in its command line, if there is one."""
    runs_tasks: bool = True
    """False for the raw limit: it starts no body, and knows no ends."""

    @property
    def keeps_ends(self) -> bool:
        return self.results != "none"

    @property
    def tells_ends(self) -> bool:
        """Return True if a client can wait for the end of a task, and read it."""
        return self.keeps_ends and self.runs_tasks

    def role_of(self, command_line: Sequence[str]) -> str:
        """Return what a process of the worker is."""
        return "recorder" if self.recorder and self.recorder in command_line else "worker"


def program(name: str) -> Path:
    """Return the path of a program of this virtual environment."""
    return Path(sys.executable).with_name(name)
