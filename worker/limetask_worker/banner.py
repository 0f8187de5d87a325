"""What the daemon says of itself once it is at work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from limetask.amqp import hidden_password
from limetask.settings import Settings
from limetask_worker.supervisor import Plan

_SHOWN_TASKS = 20


def show_banner(settings: Settings, plan: Plan, facts: Mapping[str, Any], version: str) -> None:
    """Write what this daemon does and with what to standard error; passwords are hidden."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"[bold green]limetask-worker {version}[/] is at work")
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in banner_facts(settings, plan, facts).items():
        table.add_row(f"  [dim]{name}[/]", escape(_shown(value)))
    console.print(table)


def banner_facts(settings: Settings, plan: Plan, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the banner says, by name."""
    said: dict[str, Any] = {
        "broker": hidden_password(settings.broker_url),
        "namespace": settings.namespace,
    }
    if plan.recorder:
        said["store"] = hidden_password(settings.resolved_store_url)
    if plan.task_processes:
        said["queues"] = list(plan.options.queues)
        said["processes"] = f"{plan.task_processes} with {plan.options.slots} slots each"
        said["applications"] = settings.application_factory or "limetask.Application"
        said["tasks"] = facts.get("tasks", [])
    return said


def _shown(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    if len(value) <= 3:
        return ", ".join(value)
    more = f"\n... and {len(value) - _SHOWN_TASKS} more" if len(value) > _SHOWN_TASKS else ""
    return "\n".join(value[:_SHOWN_TASKS]) + more
