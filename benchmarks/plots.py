"""The plots: SVG, small, without a background, in colours that can be seen on a light page and on a dark one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import figures
from benchmarks.figures import Figure
from benchmarks.report import number
from benchmarks.results import Results
from benchmarks.systems import SYSTEMS

_GREY = "#808890"
_OURS = "#2e9e5b"
_PEERS = "#5b8bd0"
_RAW = "#b08c3c"
_SHOWN = (
    (figures.DRAIN_READABLE, "no-op tasks until all ends are readable, /s"),
    (figures.DRAIN, "no-op tasks started, /s"),
    (figures.CPU_WORKER, "processor time of the worker a task, µs"),
    (figures.IDLE_P50, "send to known end, idle p50, ms"),
)


def plot_comparison(results: Results, path: Path) -> None:
    """Draw the medians of the most telling figures, and how far the runs lie apart."""
    shown = [
        (figure, title) for figure, title in _SHOWN if any(results.spread(name, figure.key) for name in results.systems)
    ]
    figure, axes = _figure(len(shown))
    for axis, (column, title) in zip(axes, shown, strict=True):
        _bars(axis, results, column, title)
    _save(figure, path)


def plot_series(
    path: Path, seconds: Sequence[float], panels: Sequence[tuple[str, Mapping[str, Sequence[float]]]]
) -> None:
    """Draw what was sampled over time: panels with a title, each with some named lines."""
    figure, axes = _figure(len(panels))
    minutes = [second / 60 for second in seconds]
    for axis, (title, lines) in zip(axes, panels, strict=True):
        for name, values in lines.items():
            axis.plot(minutes, values, label=name, linewidth=1)
        axis.set_title(title, loc="left", fontsize=9)
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=7, frameon=False, ncols=4)
    axes[-1].set_xlabel("minutes")
    _save(figure, path)


def _bars(axis: Any, results: Results, column: Figure, title: str) -> None:
    rows = [(SYSTEMS[name], results.spread(name, column.key)) for name in reversed(results.systems)]
    found = [(system, spread) for system, spread in rows if spread is not None]
    medians = [spread.median for _, spread in found]
    spreads = [[one.median - one.lowest for _, one in found], [one.highest - one.median for _, one in found]]
    axis.barh([system.title for system, _ in found], medians, color=[_color(one.name) for one, _ in found])
    axis.errorbar(medians, range(len(found)), xerr=spreads, fmt="none", ecolor=_GREY, elinewidth=1, capsize=2)
    for line, (_, spread) in enumerate(found):
        axis.text(spread.highest, line, f"  {number(spread.median, column.digits)}", va="center", fontsize=8)
    axis.set_title(title, loc="left", fontsize=9)
    axis.margins(x=0.15)


def _color(name: str) -> str:
    if name == "raw":
        return _RAW
    return _OURS if name.startswith("limetask") else _PEERS


def _figure(panels: int) -> tuple[Any, Any]:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    style = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _GREY)
    # Text stays text: smaller, and in the reader's own font. The same figures give the same file: no hash is random.
    pyplot.rcParams.update(style | {"svg.fonttype": "none", "svg.hashsalt": "limetask", "font.size": 8})
    figure, axes = pyplot.subplots(panels, 1, figsize=(8, 2.2 * panels), squeeze=False, layout="constrained")
    return figure, list(axes[:, 0])


def _save(figure: Any, path: Path) -> None:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})
