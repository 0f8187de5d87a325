"""What has changed since an earlier comparison."""

from __future__ import annotations

from benchmarks.figures import GROUPS
from benchmarks.report import markdown_table, number
from benchmarks.results import Results
from benchmarks.systems import SYSTEMS


def differences_table(earlier: Results, now: Results) -> str:
    """Return the medians that both comparisons have, and how far they lie apart, in percent."""
    rows = []
    for name in now.systems:
        for figure in (figure for group in GROUPS for figure in group.figures):
            before, after = earlier.median(name, figure.key), now.median(name, figure.key)
            if before and after is not None:
                change = f"{100 * (after / before - 1):+.0f} %"
                shown = [f"{number(value, figure.digits)} {figure.unit}" for value in (before, after)]
                rows.append([f"{SYSTEMS[name].title}: {figure.title}", *shown, change])
    return markdown_table(("figure", earlier.measured_at, now.measured_at, "change"), rows)
