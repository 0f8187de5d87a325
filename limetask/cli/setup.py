"""`limetask setup`: declares everything, for all who may not."""

from __future__ import annotations

import asyncio

import click

from limetask.amqp import Connection
from limetask.cli.output import json_option, print_json, print_table
from limetask.settings import Settings, current_settings
from limetask.topology import DELAY_LEVELS, Names, Topology, delay_topology, topology


@click.command()
@json_option
def setup(as_json: bool) -> None:
    """Declare every queue, exchange and binding, and print what exists now.

    \b
    Example:
      limetask setup

    Workers and producers declare what they need themselves. Where their users may not, run this once before them, and
    after each update of limetask, as a user who has the permission to configure. What exists stays as it is.
    """
    settings = current_settings()
    names = Names(settings.namespace)
    delays = delay_topology(names, DELAY_LEVELS)
    asyncio.run(_declare(settings, delays))
    document = _document((topology(names), delays))
    if as_json:
        print_json(document)
    else:
        _show(document)


async def _declare(settings: Settings, delays: Topology) -> None:
    connection = Connection(settings, "setup")
    try:
        await connection.ready(settings.connect_timeout)  # by then all but the delays is declared
        await connection.declare(delays)
    finally:
        await connection.close()


def _document(everything: tuple[Topology, ...]) -> dict[str, list[str]]:
    return {
        "exchanges": [exchange.name for wanted in everything for exchange in wanted.exchanges],
        "queues": [queue.name for wanted in everything for queue in wanted.queues],
    }


def _show(document: dict[str, list[str]]) -> None:
    rows = [(name, kind.removesuffix("s")) for kind, names in document.items() for name in names]
    print_table(("NAME", "KIND"), rows)
    counts = " and ".join(f"{len(names)} {kind}" for kind, names in document.items())
    click.echo(f"{counts} exist now.")
