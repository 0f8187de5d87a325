"""What the daemon says of itself once it is at work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from limetask.amqp import hidden_password
from limetask.settings import Settings
from limetask_worker.plan import Plan

_SHOWN_TASKS = 20
_NAME_WIDTH = 12


def show_banner(settings: Settings, plan: Plan, facts: Mapping[str, Any], version: str) -> None:
    """Write what this daemon does and with what to standard error; passwords are hidden."""
    lines = [f"[bold green]limetask-worker {version}[/] is at work"]
    lines += [
        f"  [dim]{name:<{_NAME_WIDTH}}[/]  {escape(_shown(value))}"
        for name, value in banner_facts(settings, plan, facts).items()
    ]
    Console(stderr=True, highlight=False, soft_wrap=True).print("\n".join(lines))


def banner_facts(settings: Settings, plan: Plan, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the banner says, by name."""
    said: dict[str, Any] = {
        "broker": hidden_password(settings.broker_url),
        "namespace": settings.namespace,
    }
    if plan.recorder:
        said["store"] = hidden_password(settings.resolved_store_url)
    if plan.task_processes and facts.get("tasks"):
        said["queues"] = ", ".join(plan.options.queues)
        said["processes"] = f"{plan.task_processes} with {plan.options.slots} slots each"
        said["applications"] = settings.application_factory or "limetask.Application"
        said["tasks"] = facts["tasks"]
    if facts.get("handlers"):
        said["handlers"] = facts["handlers"]
    return said


def _shown(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    lines = value[:_SHOWN_TASKS]
    if len(value) > _SHOWN_TASKS:
        lines = [*lines, f"... and {len(value) - _SHOWN_TASKS} more"]
    return f"\n{' ' * (_NAME_WIDTH + 4)}".join(lines)
