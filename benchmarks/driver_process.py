"""The process that sends tasks and reads their ends, for one system: `python -m benchmarks.driver_process SYSTEM`.

It does what it is told, one JSON line at a time: `[method, arguments...]` in, what the method returns out. It imports
its system's library and hardly anything else, so that its memory is that of a program that sends tasks.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any

from benchmarks.place import Place
from benchmarks.starts import ARGUMENT_BYTES, argument
from benchmarks.systems import SYSTEMS

_KEPT_HANDLES = 2000
_LOAD_EVERY_SECONDS = 0.02


class DriverProcess:
    """The methods that can be called; numbers of tasks run from `first` to `first` + `count` - 1."""

    def __init__(self, system: str) -> None:
        # A Client, or only a Sender: who calls knows which.
        self._client: Any = SYSTEMS[system].make_client(Place.from_environment())
        self._handles: list[Any] = []
        self._load: _Load | None = None

    def send_each(self, task: str, first: int, count: int) -> float:
        """Send one by one, and return how many seconds that took."""
        arguments = [argument(number) for number in range(first, first + count)]
        begun = time.perf_counter()
        self._keep(self._client.send_each(task, arguments))
        return time.perf_counter() - begun

    def send_many(self, task: str, first: int, count: int, length: int = ARGUMENT_BYTES) -> float:
        """Send in the fastest way, and return how many seconds that took."""
        arguments = [argument(number, length) for number in range(first, first + count)]
        begun = time.perf_counter()
        self._keep(self._client.send_many(task, arguments))
        return time.perf_counter() - begun

    def round_trips(self, task: str, number: int, count: int) -> list[float]:
        """Send and await tasks which all have the same number; return the seconds of each."""
        seconds: list[float] = self._client.round_trips(task, [argument(number)] * count)
        return seconds

    def read_each(self, count: int) -> list[float]:
        """Read the ends of tasks that were sent last; return the seconds of each."""
        handles = self._handles[-_KEPT_HANDLES:]
        seconds: list[float] = self._client.read_each((handles * (count // len(handles) + 1))[:count])
        return seconds

    def start_load(self, task: str, number: int, rate: float) -> None:
        """Begin to send `rate` tasks a second, which all have the same number."""
        self._load = _Load(self._client, task, argument(number), rate)

    def stop_load(self) -> float:
        """Stop that, and return how many tasks a second it has sent."""
        assert self._load is not None
        return self._load.stop()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _keep(self, handles: list[Any]) -> None:
        self._handles = handles[-_KEPT_HANDLES:]


class _Load:
    """Sends at a steady rate in a thread of its own."""

    def __init__(self, client: Any, task: str, text: str, rate: float) -> None:
        self._client = client
        self._task = task
        self._text = text
        self._rate = rate
        self._sent = 0
        self._begun = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send_on)
        self._thread.start()

    def stop(self) -> float:
        self._stop.set()
        self._thread.join()
        return self._sent / (time.monotonic() - self._begun)

    def _send_on(self) -> None:
        while not self._stop.wait(_LOAD_EVERY_SECONDS):
            due = int((time.monotonic() - self._begun) * self._rate) - self._sent
            # A sender that cannot keep up must still hear that it shall stop.
            due = min(due, int(self._rate) or 1)
            if due > 0:
                self._client.send_many(self._task, [self._text] * due)
                self._sent += due


def main() -> None:
    """Do what standard input says until it ends."""
    # The answers have a line to themselves: what a library prints goes to standard error.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    process = DriverProcess(sys.argv[1])
    answers.write("null\n")
    for line in sys.stdin:
        method, *arguments = json.loads(line)
        answers.write(json.dumps(getattr(process, method)(*arguments)) + "\n")


if __name__ == "__main__":
    main()
