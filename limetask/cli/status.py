"""`limetask status`: what became of a task."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from limetask.cli.output import json_option, json_value, moment_text, print_fields, print_json
from limetask.client import get_status
from limetask.status import TaskStatus


@click.command()
@click.argument("task_id", metavar="ID")
@click.argument("app")
@json_option
def status(task_id: str, app: str, as_json: bool) -> None:
    """Show the status of the task ID of the application APP.

    \b
    Example:
      limetask status 01982f60-4bf1-8a0d-9c55-1f0e5cbe8a11 acme

    It is read from the status store (LIMETASK_STORE_URL). The exit code is 1 if APP has no such task.
    """
    found = get_status(task_id, app)
    if as_json:
        print_json(_document(found))
    else:
        print_fields(_fields(found))


def _document(found: TaskStatus) -> dict[str, Any]:
    return {
        "id": found.id,
        "status": found.status.value,
        "result": found.result,
        "error": None if found.error is None else asdict(found.error),
        "task": found.task_name,
        "app": found.app,
        "attempt": found.attempt,
        "worker": found.worker,
        "sent_at": found.sent_at,
        "started_at": found.started_at,
        "finished_at": found.finished_at,
    }


def _fields(found: TaskStatus) -> dict[str, str | None]:
    error = found.error
    fields = {
        "id": found.id,
        "status": found.status.value,
        "result": None if found.result is None else str(json_value(found.result)),
        "error": None if error is None else f"{error.type}: {error.message}",
        "task": found.task_name,
        "application": found.app,
        "attempt": str(found.attempt),
        "worker": found.worker,
        "sent": moment_text(found.sent_at),
        "started": moment_text(found.started_at),
        "finished": moment_text(found.finished_at),
    }
    if error is not None and error.traceback:
        fields["traceback"] = error.traceback
    return fields
