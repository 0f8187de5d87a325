"""The command line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import ROOT, BenchmarkError
from benchmarks.comparison import MEASURES, compare, steps
from benchmarks.differences import differences_table
from benchmarks.interruption import interruptible
from benchmarks.page import DOCS, write_part
from benchmarks.plots import plot_comparison
from benchmarks.report import comparison_text
from benchmarks.results import Results
from benchmarks.scale import SCALE_MEASURES, ScaleSize, measure_scale, scale_text
from benchmarks.services import running_services
from benchmarks.soak import Soak, plot_soak, soak_text
from benchmarks.systems import SYSTEMS
from benchmarks.systems.system import System
from benchmarks.visit import Size
from limetask_worker.word_list import WordList

_FULL = Size(tasks=20_000, sent_one_by_one=2_000, sleeping_tasks=5_000, slots_seconds=5, round_trips=1_000, reads=2_000)
_QUICK = Size(tasks=5_000, sent_one_by_one=500, sleeping_tasks=2_000, slots_seconds=2, round_trips=200, reads=500)
_FULL_SCALE = ScaleSize(waiting=1_000_000, rows=10_000_000, tasks=_FULL.tasks, runs=3)
_FULL_SOAK_MINUTES = 30
_RUNS = 3
_SCRATCH = ROOT / ".benchmarks"

_console = Console(stderr=True, highlight=False)


class _AnyWords(WordList):
    """The same, and none of them is a choice too."""

    def convert(
        self, value: str | tuple[str, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        return super().convert(value, param, ctx) if value else ()

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        return "A,B,..."


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="\b\nSystems:\n"
    + "\n".join(f"  {system.name:<20} {system.title}" for system in SYSTEMS.values())
    + "\n\n\b\nMeasures beside sending and running no-op tasks:\n"
    + "\n".join(f"  {name:<20} {what}" for name, what in MEASURES.items())
    + "\n\n\b\nMeasures of scale:\n"
    + "\n".join(f"  {name:<20} {what}" for name, what in SCALE_MEASURES.items()),
)
@click.option(
    "--systems", type=_AnyWords(list(SYSTEMS)), default=",".join(SYSTEMS), help="What to compare.  [default: all]"
)
@click.option(
    "--measures", type=_AnyWords(list(MEASURES)), default=",".join(MEASURES), help="What to measure.  [default: all]"
)
@click.option("--runs", type=click.IntRange(1), help="How often, all systems in turn.  [default: 3]")
@click.option("--tasks", type=click.IntRange(100), help="No-op tasks to queue, and then to run.  [default: 20000]")
@click.option("--quick", is_flag=True, help="One run of a quarter of the tasks: a look, nothing to rely on.")
@click.option("--scale", is_flag=True, help="Instead of the comparison: limetask with very much of everything.")
@click.option(
    "--scale-measures",
    type=_AnyWords(list(SCALE_MEASURES)),
    default=",".join(SCALE_MEASURES),
    help="Which.  [default: all]",
)
@click.option(
    "--scale-tasks", type=click.IntRange(1_000), default=_FULL_SCALE.waiting, show_default=True, help="Tasks to queue."
)
@click.option(
    "--scale-rows", type=click.IntRange(1_000), default=_FULL_SCALE.rows, show_default=True, help="Rows in the store."
)
@click.option(
    "--soak", type=click.FloatRange(0.1), metavar="MINUTES", help="Instead: limetask at 70 % load for so long."
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the page, the plot and the figures as JSON.  [default: docs for what is complete, .benchmarks "
    "otherwise]",
)
@click.option(
    "--compare",
    "earlier",
    type=click.Path(exists=True, path_type=Path),
    help="Figures of an earlier comparison (JSON), to be set beside the new ones.",
)
def main(
    systems: tuple[str, ...],
    measures: tuple[str, ...],
    runs: int | None,
    tasks: int | None,
    quick: bool,
    scale: bool,
    scale_measures: tuple[str, ...],
    scale_tasks: int,
    scale_rows: int,
    soak: float | None,
    output: Path | None,
    earlier: Path | None,
) -> None:
    """Measure limetask beside its peers and beside the raw limit of the broker, on one machine and one broker.

    \b
    Examples:
      scripts/bench                                       all of it, into docs/benchmarks.md
      scripts/bench --quick --systems limetask-postgresql,raw
      scripts/bench --measures sleeping --runs 5
      scripts/bench --compare docs/benchmarks.json        and how the figures have changed
      scripts/bench --scale                               a million tasks, ten million rows, ...
      scripts/bench --soak 30                             half an hour at 70 % load

    Each run gives every system fresh queues and empty tables, one system after the other, and then all of them
    again. RabbitMQ, PostgreSQL and Redis are those of LIMETASK_BROKER_URL, LIMETASK_TEST_POSTGRES_URL and
    LIMETASK_BENCH_REDIS_URL; without them scripts start what is needed, and stop it afterwards. Ctrl-C stops everything
    that was started, and removes what was made.
    """
    with _told_how_it_ends():
        if scale:
            much = ScaleSize(scale_tasks, scale_rows, tasks or _FULL.tasks, runs or _RUNS)
            complete = scale_measures == tuple(SCALE_MEASURES) and much == _FULL_SCALE
            _measure_scale(much, scale_measures, output or _folder(complete))
        elif soak is not None:
            _measure_soak(soak, tasks or _FULL.tasks, output or _folder(soak >= _FULL_SOAK_MINUTES))
        else:
            size = _size(quick, tasks)
            runs = runs or (1 if quick else _RUNS)
            complete = (
                size == _FULL and runs >= _RUNS and len(systems) == len(SYSTEMS) and len(measures) == len(MEASURES)
            )
            _compare([SYSTEMS[name] for name in systems], measures, runs, size, output or _folder(complete), earlier)


def _folder(complete: bool) -> Path:
    return DOCS if complete else _SCRATCH


def _size(quick: bool, tasks: int | None) -> Size:
    """With fewer tasks there is less of everything, so that a tiny run is over soon."""
    size = _QUICK if quick else _FULL
    if tasks is None:
        return size
    share = tasks / size.tasks
    return Size(
        tasks=tasks,
        sent_one_by_one=max(20, min(size.sent_one_by_one, tasks // 10)),
        sleeping_tasks=int(share * size.sleeping_tasks),
        slots_seconds=share * size.slots_seconds,
        round_trips=max(20, min(size.round_trips, int(share * size.round_trips))),
        reads=max(20, min(size.reads, int(share * size.reads))),
    )


def _compare(
    systems: list[System], measures: Sequence[str], runs: int, size: Size, output: Path, earlier: Path | None
) -> None:
    _require_installed(systems)
    with running_services(systems) as services, _progress(steps(systems, measures, runs)) as tell:
        results = compare(services, systems, measures, runs, size, tell, _keep_unfinished)
    text = comparison_text(results)
    print(text)
    if earlier is not None:
        print(f"\n{differences_table(Results.read(earlier), results)}")
    page = write_part(output, "comparison", text)
    results.write(output / "benchmarks.json")
    _plot(lambda: plot_comparison(results, output / "benchmarks.svg"))
    _console.print(f"written into {page}")


def _keep_unfinished(results: Results) -> None:
    _SCRATCH.mkdir(exist_ok=True)
    results.write(_SCRATCH / "unfinished.json")


def _measure_scale(size: ScaleSize, measures: Sequence[str], output: Path) -> None:
    with running_services([SYSTEMS["limetask-postgresql"]]) as services, _progress(len(measures)) as tell:
        text = scale_text(measure_scale(services, size, measures, tell))
    print(text)
    _console.print(f"written into {write_part(output, 'scale', text)}")


def _measure_soak(minutes: float, tasks: int, output: Path) -> None:
    with running_services([SYSTEMS["limetask-postgresql"]]) as services, _progress(None) as tell:
        soak = Soak.run(services, minutes, tasks, tell)
    text = soak_text(soak)
    print(text)
    page = write_part(output, "soak", text)
    _plot(lambda: plot_soak(soak, output / "benchmarks-soak.svg"))
    _console.print(f"written into {page}")


def _plot(draw: Callable[[], None]) -> None:
    if find_spec("matplotlib") is None:
        _console.print("no plot: matplotlib is not installed (scripts/setup bench)")
    else:
        draw()


def _require_installed(systems: list[System]) -> None:
    missing = [system.name for system in systems if find_spec(system.module.partition(".")[0]) is None]
    if missing:
        raise click.ClickException(f"not installed: {', '.join(missing)}. Try: scripts/setup bench")


@contextmanager
def _progress(total: int | None) -> Iterator[Callable[[str], None]]:
    """Show what is being done: in one line on a terminal, in a line each elsewhere."""
    if not _console.is_terminal:
        yield lambda what: print(what, file=sys.stderr, flush=True)
        return
    columns = (BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=_console, transient=True) as progress:
        bar = progress.add_task("", total=total)
        done = -1

        def tell(what: str) -> None:
            nonlocal done
            done += 1
            progress.update(bar, description=what, completed=done)

        yield tell


@contextmanager
def _told_how_it_ends() -> Iterator[None]:
    try:
        with interruptible():
            yield
    except BenchmarkError as exc:
        raise click.ClickException(str(exc)) from exc
    except KeyboardInterrupt:
        _console.print("\ninterrupted: what was started is stopped, and what was made is removed")
        sys.exit(130)
