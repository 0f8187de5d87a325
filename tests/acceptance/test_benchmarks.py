"""The benchmark program, with tiny numbers, so that it cannot rot. What it measures here means nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import figures
from benchmarks.comparison import MEASURES
from benchmarks.results import Results
from benchmarks.systems import SYSTEMS

ROOT = Path(__file__).parent.parent.parent
TASKS = 200
OURS = ("limetask-postgresql", "limetask-sqlite", "raw")
PEERS = tuple(
    name
    for name, system in SYSTEMS.items()
    if name not in OURS and find_spec(system.module.partition(".")[0]) is not None
)


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
    """Every figure is there that the targets need, and the page has a row for each system."""
    results = compare(tmp_path, OURS)

    assert results.systems == list(OURS)
    for name in OURS[:2]:
        found = set(results.runs[OURS.index(name)].figures)
        assert found >= {
            figure.key
            for group in figures.GROUPS
            for figure in group.figures
            if not figure.key.startswith("cpu_")  # 200 tasks may be over before all processes are at work
        }
    assert set(results.runs[2].figures) >= {"send_each", "send_many", "drain"}
    page = (tmp_path / "benchmarks.md").read_text()
    assert [page.count(f"| {SYSTEMS[name].title} |") >= len(MEASURES) for name in OURS] == [True] * 3
    assert "Not measured yet: `make bench`" not in page


@pytest.mark.skipif(not PEERS, reason="limetask's peers are not installed: scripts/setup bench")
def test_peers_are_measured(tmp_path: Path) -> None:
    """Each peer sends, runs and keeps the ends of its tasks."""
    results = compare(tmp_path, PEERS, "--measures", "")

    assert results.systems == list(PEERS)
    for run in results.runs:
        assert min(run.figures[name] for name in ("send_each", "send_many", "drain")) > 0
        assert ("drain_readable" in run.figures) == SYSTEMS[run.system].keeps_ends
    assert json.loads((tmp_path / "benchmarks.json").read_text())["size"]["tasks"] == TASKS
