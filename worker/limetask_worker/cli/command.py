"""The `limetask-worker` command."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from typing import Any

import click

from limetask.errors import LimetaskError
from limetask.settings import Settings, current_settings
from limetask.topology import QOS_CATEGORIES, QoS
from limetask_worker.banner import banner_facts, show_banner
from limetask_worker.cli.other_options import WorkerCommand
from limetask_worker.cli.seconds import Seconds
from limetask_worker.control import ChildOptions
from limetask_worker.log_thread import log_thread
from limetask_worker.logs import LogFormat, configure_logging
from limetask_worker.plan import Plan
from limetask_worker.streams import open_missing_streams
from limetask_worker.supervisor import Supervisor
from limetask_worker.word_list import WordList

logger = logging.getLogger(__name__)

# Child processes are told their options as JSON, whose whole numbers have 64 bits.
_MOST = 1_000_000_000
_ROLES = ("tasks", "recorder", "events")


@click.command(cls=WorkerCommand, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("packages", nargs=-1, metavar="PACKAGE_OR_MODULE...")
@click.option(
    "--processes",
    type=click.IntRange(1, 1024),
    default=lambda: len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
    show_default="one a core",
    help="Processes that run tasks.",
)
@click.option(
    "--slots",
    type=click.IntRange(1, 10_000),
    default=8,
    show_default=True,
    help="Tasks that run at a time in each process.",
)
@click.option(
    "--queues",
    type=WordList(QOS_CATEGORIES),
    default=",".join(QOS_CATEGORIES),
    help="Queues to take tasks from, the most urgent first.  [default: all]",
)
@click.option(
    "--roles",
    type=WordList(_ROLES),
    default=",".join(_ROLES),
    help="What to do: run tasks, record their statuses in the store, run event handlers.  [default: all]",
)
@click.option(
    "--grace",
    type=Seconds(),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="Time that running tasks get to end when the worker is stopped.",
)
@click.option(
    "--max-tasks-per-child", type=click.IntRange(1, _MOST), metavar="N", help="Replace a process after N tasks."
)
@click.option(
    "--max-memory-per-child",
    type=click.IntRange(1, _MOST),
    metavar="MIB",
    help="Replace a process that took MIB of memory.",
)
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    default="info",
    show_default=True,
)
@click.version_option(version("limetask"), prog_name="limetask-worker")
def main(
    packages: tuple[str, ...],
    processes: int,
    slots: int,
    queues: tuple[QoS, ...],
    roles: tuple[str, ...],
    grace: float,
    max_tasks_per_child: int | None,
    max_memory_per_child: int | None,
    log_format: LogFormat,
    log_level: str,
) -> None:
    """Run the tasks and event handlers that PACKAGE_OR_MODULE... declare, with all their submodules.

    \b
    Example:
      limetask-worker my_package --processes 2 --slots 16

    Where RabbitMQ and the status store are is read from LIMETASK_BROKER_URL and LIMETASK_STORE_URL; without
    them it is the RabbitMQ on this machine and an SQLite file in your data folder.

    Stop it with Ctrl-C, SIGTERM or SIGHUP: it takes no more tasks, lets the running ones end within the grace time and
    exits with 0. A second signal, or SIGQUIT, stops it at once.
    """
    open_missing_streams()
    runs = {"tasks", "events"} & set(roles)
    if runs and not packages:
        raise click.UsageError(
            "which package holds your tasks? Try: limetask-worker my_package (or --roles recorder to run none)"
        )
    options = ChildOptions(
        worker="",
        packages=packages,
        queues=queues,
        slots=slots,
        grace=grace,
        max_tasks=max_tasks_per_child,
        max_memory_bytes=max_memory_per_child and max_memory_per_child * 1024 * 1024,
        log_format=log_format,
        log_level=log_level.lower(),
        must_be_needed=len(runs) == 1,
    )
    plan = Plan(processes if "tasks" in roles else 0, "recorder" in roles, options, "events" in roles)
    configure_logging(log_format, log_level, "supervisor")
    log_thread.start()
    try:
        settings = current_settings()
        sys.exit(asyncio.run(_supervise(settings, plan)))
    except LimetaskError as exc:
        raise click.ClickException(str(exc)) from exc


async def _supervise(settings: Settings, plan: Plan) -> int:
    return await Supervisor(settings, plan, partial(_announce, settings, plan)).run()


def _announce(settings: Settings, plan: Plan, facts: Mapping[str, Any]) -> None:
    if plan.options.log_format == "text":
        show_banner(settings, plan, facts, version("limetask"))
    else:
        logger.info("at work: %s", banner_facts(settings, plan, facts))
