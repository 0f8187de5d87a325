"""The benchmark program, with tiny numbers, so that it cannot rot. What it measures here means nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
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


def compare(output: Path, systems: Sequence[str], *arguments: str) -> Results:
    """Run the program, which fails unless each task is run exactly once and all ends can be read."""
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "benchmarks",
        "--runs",
        "1",
        "--tasks",
        str(TASKS),
        "--output",
        output,
    ]
    done = subprocess.run(
        [*command, "--systems", ",".join(systems), *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Results.read(output / "benchmarks.json")


def test_limetask_and_the_raw_limit_are_measured(tmp_path: Path) -> None:
    """Every figure is there that the targets need, and the page has a row for each system in each table."""
    results = compare(tmp_path, [OURS, "raw"])

    ours, raw = results.runs
    assert (ours.system, raw.system) == (OURS, "raw")
    # 200 tasks may be over before all processes are at work, so that their processor time cannot be told.
    wanted = {figure.key for group in figures.GROUPS for figure in group.figures if group is not figures.PROCESSOR}
    assert set(ours.figures) >= wanted
    assert set(raw.figures) >= {"send_each", "send_many", "drain"}
    page = (tmp_path / "benchmarks.md").read_text()
    assert page.count(f"| {SYSTEMS[OURS].title} |") >= len(figures.GROUPS) - 1
    assert f"| {SYSTEMS['raw'].title} |" in page
    assert "Not measured yet: `make bench`" not in page


def test_all_others_are_measured(tmp_path: Path) -> None:
    """Each sends, runs and keeps the ends of its tasks."""
    results = compare(tmp_path, MEASURED_BRIEFLY, "--measures", "")

    assert results.systems == list(MEASURED_BRIEFLY)
    for run in results.runs:
        assert min(run.figures[name] for name in ("send_each", "send_many", "drain")) > 0
        assert ("drain_readable" in run.figures) == SYSTEMS[run.system].keeps_ends
    assert json.loads((tmp_path / "benchmarks.json").read_text())["size"]["tasks"] == TASKS


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
