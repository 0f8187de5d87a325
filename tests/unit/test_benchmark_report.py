"""What the benchmarks make of their figures: medians with their spread, ratios, targets, and the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import BenchmarkError, figures
from benchmarks.differences import differences_table
from benchmarks.figures import Figure
from benchmarks.page import write_part
from benchmarks.report import cell, comparison_text, group_table, targets_table
from benchmarks.results import Results, Run
from benchmarks.statistics import Spread, percentile


def results_of(**drained: list[float]) -> Results:
    """Results of runs in which nothing but draining was measured; `_` in the name of a system stands for `-`."""
    runs = [
        Run(name.replace("_", "-"), number, {figures.DRAIN.key: rate, figures.DRAIN_READABLE.key: rate})
        for name, rates in drained.items()
        for number, rate in enumerate(rates, start=1)
    ]
    packages = ("limetask", "pika", "dramatiq", "redis")
    versions = dict.fromkeys((*packages, "RabbitMQ", "Python"), "1.0")
    size = {"tasks": 20000, "sent_one_by_one": 2000, "round_trips": 1000, "processes": 2}
    return Results("now", {"cores": "2"}, versions, size, runs)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_a_percentile_is_one_of_the_values(share: float, expected: int) -> None:
    assert percentile(list(range(100, 0, -1)), share) == expected


@pytest.mark.parametrize(
    ("spread", "shown"),
    [
        (None, "-"),
        (Spread(12345.6, 12345.6, 12345.6), "**12 346**"),
        (Spread(2000, 1000, 3000), "**2 000** (1 000 to 3 000)"),
    ],
)
def test_a_cell_shows_the_median_and_the_spread(spread: Spread | None, shown: str) -> None:
    assert cell(spread, Figure("key", "title", "/s")) == shown


def test_the_table_says_how_many_times_as_fast_limetask_is() -> None:
    table = group_table(
        results_of(limetask_postgresql=[6000, 5900, 6100], dramatiq_redis=[3000, 3000, 3000]), figures.RUNNING
    )

    assert "| Dramatiq, Redis | **3 000** | **3 000** | 2.00 x |" in table.splitlines()
    assert (
        "| limetask, PostgreSQL | **6 000** (5 900 to 6 100) | **6 000** (5 900 to 6 100) | 1.00 x |"
        in table.splitlines()
    )


@pytest.mark.parametrize(("peer", "verdict"), [(2000, "3.00 x | yes"), (3000, "2.00 x | **no**")])
def test_a_missed_target_is_called_so(peer: float, verdict: str) -> None:
    table = targets_table(results_of(limetask_postgresql=[6000], dramatiq_redis=[peer]))

    assert f"Dramatiq with results in Redis | at least 2.5 x | {verdict} |" in table
    assert "TaskIQ with results in Redis | at least 3.3 x | not measured | - |" in table


def test_results_are_the_same_after_a_file(tmp_path: Path) -> None:
    results = results_of(limetask_postgresql=[6000, 5900])
    results.write(tmp_path / "results.json")

    assert Results.read(tmp_path / "results.json") == results


def test_differences_are_in_percent() -> None:
    before, after = results_of(limetask_postgresql=[4000]), results_of(limetask_postgresql=[5000])

    assert "| limetask, PostgreSQL: no-op, first to last start | 4 000 /s | 5 000 /s | +25 % |" in differences_table(
        before, after
    )


def test_only_its_own_part_of_the_page_is_replaced(tmp_path: Path) -> None:
    text = comparison_text(results_of(limetask_postgresql=[6000]))
    page = write_part(tmp_path, "comparison", text)
    write_part(tmp_path, "scale", "new figures")
    write_part(tmp_path, "scale", "newer figures")

    content = page.read_text()
    assert text in content
    assert "newer figures" in content
    assert "new figures" not in content
    with pytest.raises(BenchmarkError, match="no place"):
        write_part(tmp_path, "nothing of the kind", "")
