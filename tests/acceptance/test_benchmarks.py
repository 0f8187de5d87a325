"""The benchmark program, with tiny numbers, so that it cannot rot. What it measures here means nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from benchmarks import figures
from benchmarks.results import Results
from benchmarks.systems import SYSTEMS
from tests.waiting import eventually

ROOT = Path(__file__).parent.parent.parent
TASKS = 200
OURS = "limetask-postgresql"
MEASURED_BRIEFLY = tuple(
    name
    for name, system in SYSTEMS.items()
    if name not in (OURS, "raw") and find_spec(system.module.partition(".")[0]) is not None
)
"""limetask's other store, and its peers where they are installed (scripts/setup bench)."""


def run_benchmarks(output: Path, *arguments: str) -> str:
    """Run the program with few tasks, and return its page; it fails unless each task is run exactly once."""
    few = ["--runs", "1", "--tasks", str(TASKS), "--output", str(output)]
    command = [sys.executable, "-m", "benchmarks", *few, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return (output / "benchmarks.md").read_text()


def test_limetask_and_the_raw_limit_are_measured(tmp_path: Path) -> None:
    """Every figure is there that the targets need, and the page has a row for each system in each table."""
    page = run_benchmarks(tmp_path, "--systems", f"{OURS},raw")

    results = Results.read(tmp_path / "benchmarks.json")
    ours, raw = results.runs
    assert (ours.system, raw.system) == (OURS, "raw")
    # 200 tasks may be over before all processes are at work, so that their processor time cannot be told.
    wanted = {figure.key for group in figures.GROUPS for figure in group.figures if group is not figures.PROCESSOR}
    assert set(ours.figures) >= wanted
    assert set(raw.figures) >= {"send_each", "send_many", "drain", "drain_readable"}
    assert page.count(f"| {SYSTEMS[OURS].title} |") >= len(figures.GROUPS) - 1
    assert f"| {SYSTEMS['raw'].title} |" in page
    assert "Not measured yet: `make bench`" not in page


def test_all_others_are_measured(tmp_path: Path) -> None:
    """Each sends, runs and keeps the ends of its tasks, which the program has counted."""
    run_benchmarks(tmp_path, "--systems", ",".join(MEASURED_BRIEFLY), "--measures", "")

    results = Results.read(tmp_path / "benchmarks.json")
    assert results.systems == list(MEASURED_BRIEFLY)
    for run in results.runs:
        assert min(run.figures[name] for name in ("send_each", "send_many", "drain")) > 0
        assert ("drain_readable" in run.figures) == SYSTEMS[run.system].keeps_ends
    assert results.size["tasks"] == TASKS


def test_scale_is_measured(tmp_path: Path) -> None:
    """The million and the ten million can be less."""
    few = ["--scale-tasks", "2000", "--scale-rows", "5000"]
    page = run_benchmarks(tmp_path, "--scale", "--scale-measures", "backlog,rows", *few)

    assert "| started |" in page
    assert "| recorder |" in page
    assert "| 5 000 |" in page


def test_a_soak_is_measured(tmp_path: Path) -> None:
    """Half an hour can be a moment."""
    page = run_benchmarks(tmp_path, "--soak", "0.1")

    assert all(f"| {row} |" in page for row in ("waiting results", "memory of recorder, MiB", "open files of recorder"))


@pytest.mark.parametrize("moment", ["sending", "running what is queued", "round trips"])
def test_an_interrupted_benchmark_leaves_nothing(moment: str, tmp_path: Path) -> None:
    """Ctrl-C ends the sender and the worker, and removes their files."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks", "--tasks", "500", "--systems", OURS, "--output", tmp_path / "output"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(temporary)},
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        assert any(line.endswith(f": {moment}\n") for line in process.stderr), "the program has ended before"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does on Ctrl-C
        assert "interrupted" in process.stderr.read()

    assert process.returncode == 130
    assert list(temporary.iterdir()) == []
    eventually(lambda: not processes_of(temporary), 5, "the sender and the worker have ended")


def processes_of(temporary: Path) -> list[psutil.Process]:
    processes = psutil.process_iter(["environ"])
    return [process for process in processes if (process.info["environ"] or {}).get("TMPDIR") == str(temporary)]
