"""`limetask handlers`: the event handlers that workers have declared, and the queues that they have left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta

import click

from limetask.cli.options import Duration
from limetask.cli.output import age, json_option, print_json, print_table, printable
from limetask.handler_registry import (
    LONG_UNHEARD,
    KnownHandler,
    Pruned,
    find_handlers,
    find_orphans,
    list_handlers,
    prune_handlers,
)


@click.group()
def handlers() -> None:
    """Event handlers: functions under @event_handler, each with a queue that keeps its events.

    \b
    Example:
      limetask handlers list
      limetask handlers prune

    A queue stays when its handler is removed from the code: it may be on its way back. Prune deletes it.
    """


@handlers.command("list")
@json_option
def list_all(as_json: bool) -> None:
    """List the event handlers that workers have declared, with what waits for them.

    \b
    Examples:
      limetask handlers list
      limetask handlers list --json | jq -r '.[] | select(.consumers == 0) | .name'

    Handlers with mode="broadcast" have a queue only while their worker runs, and are not listed.
    """
    known = list_handlers()
    if as_json:
        print_json([asdict(handler) for handler in known])
    elif not known:
        click.echo("No event handlers: no worker has declared any.")
    else:
        _print_handlers(known)


@handlers.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--older-than",
    type=Duration(),
    metavar="AGE",
    help="Those that no worker has declared for AGE: 30m, 12h, 2d. Default: 10m.",
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask for confirmation.")
@json_option
def prune(names: tuple[str, ...], older_than: timedelta | None, yes: bool, as_json: bool) -> None:
    """Delete the queues of event handlers whose code is gone: those with these NAMEs, or all that no worker declares.

    \b
    Examples:
      limetask handlers prune
      limetask handlers prune --older-than 2d
      limetask handlers prune shop.events.notify

    The undelivered events in a queue are deleted with it. A queue that a worker consumes from is left alone and
    reported; the exit code is then 1. A queue that seems to be empty is looked at for 15 seconds before.
    """
    chosen = _chosen(names, older_than)
    pruned = Pruned({}, ())
    if chosen and (yes or _confirmed([handler for handler in chosen if not handler.consumers])):
        pruned = prune_handlers(handler.name for handler in chosen)
    _report(pruned, as_json)


def _chosen(names: Sequence[str], older_than: timedelta | None) -> list[KnownHandler]:
    """Return the handlers to prune; raises UsageError if they are chosen in two ways."""
    if names and older_than is not None:
        raise click.UsageError("give either NAMEs or --older-than")
    return find_handlers(names) if names else find_orphans(LONG_UNHEARD if older_than is None else older_than)


def _confirmed(chosen: Sequence[KnownHandler]) -> bool:
    """Ask on standard error, with what would be lost; Ctrl-C and the end of the input mean no."""
    if not chosen:
        return True
    for handler in chosen:
        click.echo(f"{printable(handler.name)}: {_state(handler)}", err=True)
    events = sum(handler.waiting or 0 for handler in chosen)
    lost = f" with {events:,} undelivered event{_s(events)}" if events else ""
    click.confirm(f"Delete {_queues(len(chosen))}{lost}?", abort=True, err=True)
    return True


def _state(handler: KnownHandler) -> str:
    """Return what speaks for and against pruning a handler."""
    if handler.waiting is None:
        waiting = "its queue is gone"
    else:
        waiting = f"{handler.waiting:,} undelivered event{_s(handler.waiting)}, {handler.consumers} consumers"
    declared = age(handler.declared_at)
    return f"{waiting}, {'never declared' if declared is None else f'declared {declared} ago'}"


def _report(pruned: Pruned, as_json: bool) -> None:
    if as_json:
        print_json({"deleted": pruned.deleted, "in_use": pruned.in_use})
    else:
        events = sum(pruned.deleted.values())
        lost = f", with {events:,} event{_s(events)}" if events else ""
        click.echo(f"{_queues(len(pruned.deleted))} deleted{lost}.")
        for name in pruned.in_use:
            click.echo(f"{printable(name)} was left alone: a worker consumes from its queue. Stop it first", err=True)
    if pruned.in_use:
        raise SystemExit(1)


def _print_handlers(known: Sequence[KnownHandler]) -> None:
    rows = [
        (
            handler.name,
            "\n".join(handler.bindings),
            None if handler.waiting is None else f"{handler.waiting:,}",
            None if handler.consumers is None else str(handler.consumers),
            age(handler.declared_at),
        )
        for handler in known
    ]
    print_table(("HANDLER", "PATTERNS", "WAITING", "CONSUMERS", "DECLARED AGO"), rows)


def _queues(count: int) -> str:
    return f"{count} queue{_s(count)}"


def _s(count: int) -> str:
    return "" if count == 1 else "s"
