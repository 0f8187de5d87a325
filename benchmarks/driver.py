"""The handle of the process that sends tasks and reads their ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks import ROOT, BenchmarkError
from benchmarks.interruption import start_process
from benchmarks.place import Place
from benchmarks.starts import ARGUMENT_BYTES
from benchmarks.systems.system import System

_END_SECONDS = 10


class Driver:
    """Starts a `benchmarks.driver_process` for a system; a context that ends it. See there for the methods."""

    def __init__(self, system: System, place: Place) -> None:
        self._log = Path(place.folder) / f"driver-{os.urandom(3).hex()}.log"
        with self._log.open("w") as log:
            self._process = start_process(
                [sys.executable, "-m", "benchmarks.driver_process", system.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=1,
                cwd=ROOT,
                env=os.environ | place.environment(),
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Driver:
        try:
            self._answer("its start")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        if kind is None:
            with suppress(BenchmarkError):
                self._call("close")
        else:
            self._process.kill()  # it may be waiting for the end of a task that nobody runs any more
        self._end()

    def send_each(self, task: str, first: int, count: int) -> float:
        seconds: float = self._call("send_each", task, first, count)
        return seconds

    def send_many(self, task: str, first: int, count: int, length: int = ARGUMENT_BYTES) -> float:
        seconds: float = self._call("send_many", task, first, count, length)
        return seconds

    def round_trips(self, task: str, number: int, count: int) -> list[float]:
        seconds: list[float] = self._call("round_trips", task, number, count)
        return seconds

    def read_each(self, count: int) -> list[float]:
        seconds: list[float] = self._call("read_each", count)
        return seconds

    def start_load(self, task: str, number: int, rate: float) -> None:
        self._call("start_load", task, number, rate)

    def stop_load(self) -> float:
        rate: float = self._call("stop_load")
        return rate

    def _call(self, method: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # then it says in its log why it has ended
            self._process.stdin.write(json.dumps([method, *arguments]) + "\n")
        return self._answer(method)

    def _answer(self, method: str) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchmarkError(f"the sender ended in {method}:\n{self._log.read_text()[-3000:]}")
        return json.loads(line)

    def _end(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
