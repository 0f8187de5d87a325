"""How the benchmarks count starts: across threads and processes, without missing or doubling one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.starts import ARGUMENT_BYTES, Starts, argument

ROOT = Path(__file__).parents[2]

# Forks after its first start, as pools do, and starts the odd numbers in one process and the even ones in the other.
WORKER = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
from benchmarks.starts import argument, note_start

tasks = int(sys.argv[1])
note_start(argument(tasks))
child = os.fork()
numbers = range(1 if child else 0, tasks, 2)
with ThreadPoolExecutor(4) as pool:
    list(pool.map(note_start, map(argument, numbers)))
if child:
    os.waitpid(child, 0)
"""


def run_worker(starts: Starts) -> None:
    subprocess.run([sys.executable, "-c", WORKER, str(starts.tasks)], cwd=ROOT, env=starts.environment(), check=True)


def test_every_start_is_counted_once(tmp_path: Path) -> None:
    starts = Starts(tmp_path / "starts", 1000)
    assert (starts.started, starts.processes) == (0, 0)

    run_worker(starts)

    assert (starts.started, starts.started_again, starts.processes) == (1000, 0, 2)
    assert len(set(starts.pids())) == 2
    assert 0 < starts.span().seconds < 60


def test_a_second_start_is_noticed(tmp_path: Path) -> None:
    starts = Starts(tmp_path / "starts", 10)
    run_worker(starts)
    run_worker(starts)

    assert (starts.started, starts.started_again) == (10, 10)


def test_an_argument_has_its_length_and_its_number() -> None:
    assert len(argument(7)) == ARGUMENT_BYTES
    assert argument(7).startswith("00000007x")
    assert len(argument(7, 100_000)) == 100_000
