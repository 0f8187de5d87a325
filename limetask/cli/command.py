"""The command itself: its groups, and how it tells an error."""

from __future__ import annotations

import logging
from importlib.metadata import version
from typing import Any

import click

from limetask.cli.dead import dead
from limetask.cli.doctor import doctor
from limetask.cli.handlers import handlers
from limetask.cli.output import printable
from limetask.cli.setup import setup
from limetask.cli.status import status
from limetask.errors import LimetaskError
from limetask.settings import unknown_variables

_OTHER_COMMANDS = {"worker": "workers are started with limetask-worker, a command of its own"}
_OTHER_COMMANDS |= dict.fromkeys(("inspect", "report"), "`limetask doctor` looks at everything")
_OTHER_COMMANDS |= {"result": "`limetask status ID APP` shows a task", "events": "docs/events.md tells how to listen"}


class _Group(click.Group):
    """Tells an error of limetask as `Error: ...`, with exit code 1 and without a traceback."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] in _OTHER_COMMANDS:
            ctx.fail(f"No such command {args[0]!r}: {_OTHER_COMMANDS[args[0]]}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LimetaskError as exc:
            raise click.ClickException(printable(str(exc))) from exc


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version("limetask"), prog_name="limetask")
def limetask() -> None:
    """Look after limetask: whether all is well, its dead letters, its event handlers, and the statuses of
    its tasks.

    \b
    Examples:
      limetask setup
      limetask doctor
      limetask dead list
      limetask handlers list
      limetask status 01982f60-4bf1-8a0d-9c55-1f0e5cbe8a11 acme

    Where RabbitMQ and the status store are is read from LIMETASK_BROKER_URL and LIMETASK_STORE_URL, as by
    limetask-worker. Each command has --json, which prints one JSON document for other programs.
    """
    # What goes wrong is raised and told once; the library's warnings would only tell it before, and worse.
    logging.getLogger("limetask").addHandler(logging.NullHandler())
    for warning in unknown_variables():
        click.echo(f"Warning: {warning}", err=True)


limetask.add_command(setup)
limetask.add_command(doctor)
limetask.add_command(dead)
limetask.add_command(handlers)
limetask.add_command(status)
