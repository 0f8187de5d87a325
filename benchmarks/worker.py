"""A system's worker in processes of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from benchmarks import ROOT, BenchmarkError
from benchmarks.interruption import start_process
from benchmarks.place import Place
from benchmarks.processes import Usage, family
from benchmarks.starts import Starts
from benchmarks.systems.system import System

_STOP_SECONDS = 30
_STANDSTILL_SECONDS = 90


class Worker:
    """Started at once; a context that stops it. `starts` is where its bodies say that they begin."""

    def __init__(self, system: System, place: Place, starts: Starts, processes: int) -> None:
        self.starts = starts
        self.processes = processes
        self._system = system
        self._log = Path(place.folder) / f"worker-{os.urandom(3).hex()}.log"
        environment = place.environment() | starts.environment() | system.environment | {"PYTHONPATH": str(ROOT)}
        with self._log.open("w") as log:
            self._process = start_process(
                system.command(processes),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=os.environ | environment,
            )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        if kind is None:
            self._stop()
        self._kill()

    @property
    def pid(self) -> int:
        return self._process.pid

    def usages(self) -> list[Usage]:
        """Return what each of its processes takes."""
        return family(self._process.pid, self._system.role_of)

    def wait_until(self, condition: Callable[[], bool], progress: Callable[[], int], every: float = 0.02) -> None:
        """Return when the condition holds; raises BenchmarkError if the worker ends or stands still before.

        `progress` is what must grow meanwhile.
        """
        last, since = -1, time.monotonic()
        while not condition():
            if self._process.poll() is not None:
                raise BenchmarkError(f"the worker ended with {self._process.returncode}:\n{self._tail()}")
            if (now := progress()) != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since > _STANDSTILL_SECONDS:
                raise BenchmarkError(f"the worker stands still at {last} tasks; the end of its log:\n{self._tail()}")
            time.sleep(every)

    def _stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]
