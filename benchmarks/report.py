"""Figures as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import figures
from benchmarks.figures import GROUPS, Figure, Group
from benchmarks.results import Results
from benchmarks.statistics import Spread
from benchmarks.systems import SYSTEMS
from benchmarks.systems.system import System
from benchmarks.targets import TARGETS

_OURS = "limetask-postgresql"
_NONE = "-"


def comparison_text(results: Results) -> str:
    """Return all that the page says of a comparison."""
    parts = [
        "![The most telling figures as bars](benchmarks.svg)",
        *(f"### {group.title}\n\n{group_table(results, group)}" for group in GROUPS if _has_any(results, group)),
        f"### Wanted and measured\n\n{targets_table(results)}",
        f"### What was compared\n\n{settings_table(results)}",
        f"### On what\n\n{machine_table(results)}",
        "The figures of all runs are in [benchmarks.json](benchmarks.json).",
    ]
    return "\n\n".join(parts)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; the first column is text, the others are numbers."""
    border = ["---", *("---:" for _ in columns[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, border, *rows))


def group_table(results: Results, group: Group) -> str:
    """Return one table: medians, with the lowest and the highest run, and how ours compares where that is asked."""
    shown = [figure for figure in group.figures if _is_measured(results, figure)]
    compares = group is figures.RUNNING and _ratio_to_ours(results, _OURS) is not None
    columns = [
        "system",
        *(f"{figure.title}, {figure.unit}" for figure in shown),
        *(["limetask / this"] if compares else []),
    ]
    rows = [
        [
            SYSTEMS[name].title,
            *(cell(results.spread(name, figure.key), figure) for figure in shown),
            *([_ratio_to_ours(results, name) or _NONE] if compares else []),
        ]
        for name in results.systems
    ]
    return markdown_table(columns, rows)


def cell(spread: Spread | None, figure: Figure) -> str:
    """Return a median, and how far the runs lie apart."""
    if spread is None:
        return _NONE
    median, lowest, highest = (number(value, figure.digits) for value in (spread.median, spread.lowest, spread.highest))
    return f"**{median}**" if lowest == highest else f"**{median}** ({lowest} to {highest})"


def number(value: float, digits: int = 0) -> str:
    """Return a number with its thousands apart."""
    return f"{value:,.{digits}f}".replace(",", " ")


def targets_table(results: Results) -> str:
    """Return what is wanted, what was measured, and whether that is enough."""
    rows = []
    for target in TARGETS:
        value = target.measured(results)
        if value is None:
            rows.append([target.text, target.limit, "not measured", _NONE])
        else:
            rows.append([target.text, target.limit, f"{_short(value)}{target.unit}", _yes(target.is_met(value))])
    return markdown_table(("target", "wanted", "measured", "met"), rows)


def settings_table(results: Results) -> str:
    """Return how each system was set up, one column a system would be too wide: one row each."""
    systems = [SYSTEMS[name] for name in results.systems]
    names = list(dict.fromkeys(name for system in systems for name in system.notes))
    columns = ["system", "versions", *names]
    rows = [
        [system.title, _versions(results, system), *(system.notes.get(name, _NONE) for name in names)]
        for system in systems
    ]
    border = ["---" for _ in columns]
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, border, *rows))


def machine_table(results: Results) -> str:
    """Return the machine, the servers and Python, and how much was measured."""
    servers = {
        name: results.versions[name]
        for name in ("RabbitMQ", "PostgreSQL", "Redis", "Python")
        if name in results.versions
    }
    size = results.size
    much = {
        "measured": results.measured_at,
        "runs": f"{max(run.number for run in results.runs)} of each system, in turn",
        "queued no-op tasks": number(size["tasks"]),
        "of these sent one by one": number(size["sent_one_by_one"]),
        "round trips": number(size["round_trips"]),
        "processes of each worker": str(size["processes"]),
    }
    rows = (results.machine | servers | much).items()
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _ratio_to_ours(results: Results, name: str) -> str | None:
    ours, theirs = _throughput(results, _OURS), _throughput(results, name)
    return None if not ours or not theirs else f"{_short(ours / theirs)} x"


def _throughput(results: Results, name: str) -> float | None:
    readable = results.median(name, figures.DRAIN_READABLE.key)
    return readable if readable is not None else results.median(name, figures.DRAIN.key)


def _versions(results: Results, system: System) -> str:
    return ", ".join(f"{package} {results.versions[package]}" for package in system.packages)


def _short(value: float) -> str:
    return number(value, 0 if value >= 100 else 1 if value >= 10 else 2)


def _yes(is_met: bool) -> str:
    return "yes" if is_met else "**no**"


def _is_measured(results: Results, figure: Figure) -> bool:
    return any(results.spread(name, figure.key) for name in results.systems)


def _has_any(results: Results, group: Group) -> bool:
    return any(_is_measured(results, figure) for figure in group.figures)
