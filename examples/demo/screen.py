"""What is seen on the screen."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from traceback import format_exception
from typing import Any

from pika.exceptions import AMQPError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.syntax import Syntax

from lime_task import LimetaskError, TaskStatus

from . import DemoError

console = Console(highlight=False, width=min(80, Console().width))


def begin(title: str, sentence: str, function: Callable[..., Any] | None = None) -> None:
    """Begin a section: what it is about, what it shows, and the code of a function that it is about to call."""
    console.print()
    console.rule(f"[bold]{title}[/]", align="left", style="cyan")
    console.print(sentence)
    if function is not None:
        code = textwrap.indent(_body(function), "  ")
        console.print()
        console.print(Syntax("", "python", theme="ansi_dark").highlight(code))


def show_status(status: TaskStatus) -> None:
    """Print a status as the documents do."""
    console.print("status:", status.status, markup=False)
    console.print("result:", status.result, markup=False, soft_wrap=True)


def check(is_true: bool, claim: str) -> None:
    """Say what was just checked, or stop the demo if it is not so."""
    if not is_true:
        raise DemoError(f"it is not true that {claim}")
    console.print(f"[green]✓[/] {claim}")


def show_failure(exc: BaseException) -> None:
    """Say why the demo has failed; with a traceback if nobody has thought of that."""
    match exc:
        case DemoError():
            reason = str(exc)
        case LimetaskError() | OSError():
            reason = f"{type(exc).__name__}: {exc}"
        case AMQPError():
            reason = f"the broker cannot be used: {exc!r}"
        case _:
            reason = "".join(format_exception(exc))
    console.print("\n[bold red]FAILED:[/]", end=" ")
    console.print(reason, markup=False, soft_wrap=True)


def progress_bar() -> Progress:
    """Return a bar for work that is counted."""
    columns = (TextColumn("{task.description:13}"), BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def _body(function: Callable[..., Any]) -> str:
    source = textwrap.dedent(inspect.getsource(function))
    definition = ast.parse(source).body[0]
    assert isinstance(definition, ast.FunctionDef)
    first = definition.body[1 if ast.get_docstring(definition) else 0]
    return textwrap.dedent("\n".join(source.splitlines()[first.lineno - 1 :]))
