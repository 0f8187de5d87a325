"""`limetask dead`: the messages that were set aside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import click

from limetask import dead_letters
from limetask.cli.options import Duration
from limetask.cli.output import (
    age,
    json_option,
    moment_text,
    print_fields,
    print_json,
    print_table,
    printable,
    progress_bar,
)
from limetask.dead_letters import DeadLetter, DeadLetterContent, DeadLetterFilter, Outcome
from limetask.errors import NotFoundError

Command = TypeVar("Command", bound=Callable[..., Any])

_SHOWN_BODY_BYTES = 2000


@click.group()
def dead() -> None:
    """Dead letters: messages that were set aside because they could not run or be recorded.

    \b
    Example:
      limetask dead list --task 'shop.*' --newer-than 1h
      limetask dead show 3f9c0a1b2d4e5f60
      limetask dead retry 3f9c0a1b2d4e5f60

    Looking changes nothing. A letter stays until it is retried or purged.
    """


def _filter_options(command: Command) -> Command:
    """Add the options that choose letters."""
    options = (
        click.option("--task", metavar="PATTERN", help="Of this task; also a shell pattern, such as 'shop.*'."),
        click.option("--app", metavar="NAME", help="Of this application."),
        click.option("--reason", metavar="TEXT", help="With this text in the reason, in any case."),
        click.option("--older-than", type=Duration(), metavar="AGE", help="Dead for longer than AGE: 30m, 12h, 2d."),
        click.option("--newer-than", type=Duration(), metavar="AGE", help="Dead for less than AGE."),
        click.option("--limit", type=click.IntRange(1), metavar="NUMBER", help="At most so many, from the front."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@dead.command("list")
@_filter_options
@json_option
def list_letters(as_json: bool, **options: Any) -> None:
    """List dead letters, in the order of their queue.

    \b
    Examples:
      limetask dead list
      limetask dead list --task 'shop.*' --app acme --older-than 2d
      limetask dead list --reason 'unknown task' --json | jq -r '.[].id'
    """
    wanted = DeadLetterFilter(**options)
    letters = _look(wanted)
    if as_json:
        print_json([_document(letter) for letter in letters])
    elif not letters:
        click.echo("No dead letters." if wanted == dead_letters.ALL else "No dead letters fit.")
    else:
        _print_letters(letters)
        click.echo(f"{_counted(len(letters))}. Look at one: limetask dead show ID")


@dead.command()
@click.argument("letter_id", metavar="ID")
@json_option
def show(letter_id: str, as_json: bool) -> None:
    """Show the dead letter ID with its reason, headers and arguments.

    \b
    Example:
      limetask dead show 3f9c0a1b2d4e5f60
    """
    content = dead_letters.show(letter_id)
    if as_json:
        print_json(_content_document(content))
    else:
        print_fields(_content_fields(content))


def _choice(command: Command) -> Command:
    """Add the arguments and options of a command that acts on chosen letters."""
    command = click.option("--yes", "-y", is_flag=True, help="Do not ask for confirmation.")(command)
    command = _filter_options(command)
    command = click.option("--all", "everything", is_flag=True, help="All dead letters.")(command)
    return click.argument("ids", nargs=-1, metavar="[ID]...")(command)


@dead.command()
@_choice
@json_option
def retry(ids: tuple[str, ...], everything: bool, yes: bool, as_json: bool, **options: Any) -> None:
    """Send the tasks of dead letters again, under the same task id: the letters with these IDs, or that fit.

    \b
    Examples:
      limetask dead retry 3f9c0a1b2d4e5f60
      limetask dead retry --reason 'unknown task' --newer-than 1d
      limetask dead retry --all --yes

    Each is sent exactly once: if this is interrupted, run it again. What is no task of limetask stays where it is,
    and is reported; the exit code is then 1.
    """
    letters = _chosen(ids, everything, DeadLetterFilter(**options))
    outcome = Outcome(0)
    if letters and (yes or _confirmed("Retry", letters)):
        with progress_bar("retrying") as bar:
            outcome = dead_letters.retry([letter.id for letter in letters], on_progress=bar)
    _report("retried", outcome, as_json)


@dead.command()
@_choice
@json_option
def purge(ids: tuple[str, ...], everything: bool, yes: bool, as_json: bool, **options: Any) -> None:
    """Delete dead letters for good: those with these IDs, or that fit.

    \b
    Examples:
      limetask dead purge 3f9c0a1b2d4e5f60
      limetask dead purge --app acme --older-than 30d
      limetask dead purge --all --yes

    The statuses of their tasks stay as they are.
    """
    letters = _chosen(ids, everything, DeadLetterFilter(**options))
    outcome = Outcome(0)
    if letters and (yes or _confirmed("Purge", letters)):
        with progress_bar("purging") as bar:
            outcome = dead_letters.purge([letter.id for letter in letters], on_progress=bar)
    _report("purged", outcome, as_json)


def _look(wanted: DeadLetterFilter) -> list[DeadLetter]:
    with progress_bar("looking") as bar:
        return dead_letters.list_dead_letters(wanted, on_progress=bar)


def _chosen(ids: Sequence[str], everything: bool, wanted: DeadLetterFilter) -> list[DeadLetter]:
    """Return the letters to act on: exactly these are acted on, whatever dies meanwhile.

    Raises UsageError unless they are chosen in one way, and NotFoundError for an id that no letter has.
    """
    has_filter = wanted != DeadLetterFilter(limit=wanted.limit)
    if not ids and not everything and not has_filter:
        raise click.UsageError("which ones? Give IDs, a filter such as --task, or --all")
    if everything and has_filter:
        raise click.UsageError("--all means every dead letter: leave it out, or the filter")
    if ids and (everything or wanted != dead_letters.ALL):
        raise click.UsageError("give either IDs, or a filter, or --all")
    return _with_ids(ids) if ids else _look(wanted)


def _with_ids(ids: Sequence[str]) -> list[DeadLetter]:
    letters = [letter for letter in _look(dead_letters.ALL) if letter.id in ids]
    missing = sorted(set(ids) - {letter.id for letter in letters})
    if missing:
        raise NotFoundError(f"there is no dead letter {', '.join(missing)}: nothing was changed")
    return letters


def _confirmed(verb: str, letters: Sequence[DeadLetter]) -> bool:
    """Ask on standard error, with what is known of the letters; Ctrl-C and the end of the input mean no."""
    tasks = sorted({printable(letter.task_name) for letter in letters})
    shown = ", ".join(tasks[:5]) + (", ..." if len(tasks) > 5 else "")
    click.confirm(f"{verb} {_counted(len(letters))} ({shown})?", abort=True, err=True)
    return True


def _report(done: str, outcome: Outcome, as_json: bool) -> None:
    if as_json:
        refused = [{"id": letter.id, "reason": reason} for letter, reason in outcome.refused]
        print_json({done: outcome.count, "refused": refused, "missing": list(outcome.missing)})
    else:
        click.echo(f"{_counted(outcome.count)} {done}.")
        for letter, reason in outcome.refused:
            click.echo(f"{letter.id} cannot be {done}: {printable(reason)}", err=True)
        for letter_id in outcome.missing:
            click.echo(f"{letter_id} was gone already", err=True)
    if outcome.refused:
        raise SystemExit(1)


def _print_letters(letters: Sequence[DeadLetter]) -> None:
    rows = [
        (
            letter.id,
            age(letter.last_died_at),
            letter.task_name or letter.kind,
            letter.app,
            None if letter.attempt is None else str(letter.attempt),
            letter.reason,
        )
        for letter in letters
    ]
    print_table(("ID", "DIED AGO", "TASK", "APP", "ATTEMPT", "REASON"), rows)


def _counted(count: int) -> str:
    return f"{count:,} dead letter{'' if count == 1 else 's'}"


def _document(letter: DeadLetter) -> dict[str, Any]:
    return asdict(letter)


def _content_document(content: DeadLetterContent) -> dict[str, Any]:
    return {
        **_document(content.letter),
        "args": content.args,
        "kwargs": content.kwargs,
        "undecodable": content.undecodable,
        "headers": content.headers,
    }


def _content_fields(content: DeadLetterContent) -> dict[str, str | None]:
    letter = content.letter
    fields = {
        "id": letter.id,
        "kind": letter.kind if letter.record is None else f"{letter.kind}: {letter.record}",
        "task": letter.task_name,
        "task id": letter.task_id,
        "application": letter.app,
        "attempt": None if letter.attempt is None else str(letter.attempt),
        "reason": letter.reason,
        "error": letter.error,
        "queue": letter.queue,
        "first died": moment_text(letter.first_died_at),
        "last died": moment_text(letter.last_died_at),
        "deaths": str(letter.deaths),
        "size": f"{letter.size:,} bytes",
        "headers": _lines(content.headers),
    }
    body = repr(content.body[:_SHOWN_BODY_BYTES])
    if letter.kind in ("record", "event"):
        return {**fields, "body": body}
    if content.undecodable is not None:
        return {**fields, "arguments": f"undecodable: {content.undecodable}", "body": body}
    return {**fields, "arguments": repr(content.args), "named": _lines(content.kwargs or {})}


def _lines(values: Any) -> str:
    return "\n".join(f"{name} = {value!r}" for name, value in values.items())
