"""How the command writes: tables for people, one JSON document for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

_SHOWN_AS_NOTHING = "-"
# What is piped into another program is not to be cut or wrapped for a terminal.
_WIDTH_WITHOUT_TERMINAL = 240
# orjson goes 254 levels deep, and the document around has some of its own.
_DEEPEST = 100
_NOT_ASCII = re.compile(r"[^\n -~]")
_AGE_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60))

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def print_json(document: Any) -> None:
    """Write a document to standard output. What JSON cannot express is written as text."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS
    click.echo(_NOT_ASCII.sub(_shown_in_json, orjson.dumps(json_value(document), default=str, option=options).decode()))


def json_value(value: Any, depth: int = 0) -> Any:
    """Return a value that orjson can write: a task's arguments may hold sets, bytes, any keys, and be deep."""
    if depth > _DEEPEST:
        return repr(value)
    match value:
        case Mapping():
            return {_key(key): json_value(part, depth + 1) for key, part in value.items()}
        case list() | tuple() | set() | frozenset():
            return [json_value(part, depth + 1) for part in value]
        case bytes():
            return value.decode("utf-8", "backslashreplace")
        case str():
            return value.encode("utf-8", "backslashreplace").decode()  # it may hold half of a surrogate pair
        case int() if not -(2**63) <= value < 2**64:
            return str(value)
    return value


def _shown_in_json(character: re.Match[str]) -> str:
    """Return it, or if a terminal would obey it, what means the same in JSON."""
    return character[0] if character[0].isprintable() else json.dumps(character[0])[1:-1]


def _key(key: Any) -> str:
    return str(json_value(key if isinstance(key, str | bytes) else repr(key)))


def print_table(columns: Iterable[str], rows: Iterable[Sequence[str | None]]) -> None:
    """Write a table to standard output; the first column is never cut."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number == 0, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    _console().print(table)


def print_fields(fields: Mapping[str, str | None]) -> None:
    """Write names and values, one a line."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields.items():
        table.add_row(name, Text(printable(value)))
    _console().print(table)


def printable(text: str | None) -> str:
    """Return a text without what a terminal would obey: a message may hold anything. Line breaks stay."""
    if text is None or not text:
        return _SHOWN_AS_NOTHING
    return "".join(
        character if character.isprintable() or character == "\n" else repr(character)[1:-1] for character in text
    )


def age(moment: datetime | None) -> str | None:
    """Return how long ago something was, in its largest unit: `3 h`."""
    if moment is None:
        return None
    seconds = max(timedelta(), datetime.now(UTC) - moment).total_seconds()
    for unit, size in _AGE_UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def moment_text(moment: datetime | None) -> str | None:
    """Return a moment in UTC, to the second."""
    return None if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


class ProgressBar:
    """A bar on standard error, if that is a terminal, once it is known that there is much to do."""

    _MANY = 500

    def __init__(self, progress: Progress, what: str) -> None:
        self._progress = progress
        self._task = progress.add_task(what, total=None, visible=False)

    def __call__(self, done: int, total: int) -> None:
        """Show that `done` of `total` are done."""
        self._progress.update(self._task, completed=done, total=total, visible=total >= self._MANY)


@contextmanager
def progress_bar(what: str) -> Iterator[ProgressBar]:
    """Give a bar that vanishes at the end."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield ProgressBar(progress, what)


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH_WITHOUT_TERMINAL)
