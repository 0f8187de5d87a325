"""What a system takes when it does nothing: memory, and time to import."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import cache
from statistics import mean

from benchmarks import ROOT, figures
from benchmarks.processes import MIB, proportional_bytes, resident_bytes
from benchmarks.visit import Visit
from benchmarks.worker import Worker

_QUIET_SECONDS = 1
_IMPORTS = 5
_MILLISECONDS = 1000

_TELL_MEMORY = "import sys; print(flush=True); sys.stdin.read()"


def measure_client_memory(visit: Visit) -> None:
    """Measure a process that has sent tasks, above one that is nothing but Python."""
    visit.figures[figures.MEMORY_CLIENT.key] = (resident_bytes(visit.driver.pid) - _bare_python_bytes()) / MIB


def measure_worker_memory(visit: Visit, worker: Worker) -> None:
    """Measure a worker that has run tasks and has nothing to do any more."""
    time.sleep(_QUIET_SECONDS)
    visit.figures[figures.MEMORY_PROCESS.key] = mean(map(resident_bytes, worker.starts.pids())) / MIB
    visit.figures[figures.MEMORY_WORKER.key] = sum(proportional_bytes(one.pid) for one in worker.usages()) / MIB


def measure_import(visit: Visit) -> None:
    """Measure how much longer Python takes with the import than without: the best of some."""
    seconds = _best_seconds(f"import {visit.system.module}") - _best_seconds("pass")
    visit.figures[figures.IMPORT.key] = _MILLISECONDS * seconds


def _best_seconds(program: str) -> float:
    return min(_seconds(program) for _ in range(_IMPORTS))


def _seconds(program: str) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
    return time.perf_counter() - begun


@cache
def _bare_python_bytes() -> int:
    with subprocess.Popen(
        [sys.executable, "-c", _TELL_MEMORY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        return resident_bytes(process.pid)
