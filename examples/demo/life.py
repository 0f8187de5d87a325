"""The sections on a task's life: it is sent, a worker starts and runs it, and it ends before the worker does."""

from __future__ import annotations

import time
from collections import Counter

from crm import actions
from crm.application import IDENTIFIERS, open_application
from crm.database import TABLES, create_database, insert_rows, read_rows

from lime_task import Status, TaskStatus, get_status, send_task

from .screen import begin, check, console, progress_bar
from .stage import Stage, described
from .worker import COMMAND, Worker


def load_data() -> None:
    """Make the CRM's databases."""
    begin("A CRM with two customers", "Two applications with a database each: made-up firms, filled from CSV.")
    with progress_bar() as progress:
        for identifier in IDENTIFIERS:
            rows = {table: read_rows(identifier, table) for table in TABLES}
            bar = progress.add_task(identifier, total=sum(map(len, rows.values())))
            create_database(identifier)
            with open_application(identifier) as app:
                for table in TABLES:
                    insert_rows(app.database, table, rows[table])
                    progress.advance(bar, len(rows[table]))


def send_without_worker(stage: Stage) -> TaskStatus:
    """Send a task before any worker runs."""
    sentence = "No worker runs yet: the task is kept in RabbitMQ, and its status is PENDING."
    begin("Sending a task", sentence, actions.describe_company)
    status = actions.describe_company(stage.nordic_foods)
    check(status.status == "PENDING" and status.result is None, "send_task gives a PENDING status without a result")
    found = get_status(status.id, "nordic-foods")
    check(found.status is Status.PENDING, "get_status says so too, without any worker")
    return status


def start_worker(worker: Worker) -> None:
    """Show the worker's banner."""
    begin("Starting a worker", "A process of its own, which finds the tasks of the package `crm` by itself.")
    console.print(f"\n  $ {' '.join(COMMAND)}\n")
    worker.wait_until_started()
    console.print("\n".join(worker.lines), markup=False, soft_wrap=True)
    check(any("is at work" in line for line in worker.lines), "the worker is at work")


def follow_tasks(stage: Stage, waiting: TaskStatus) -> None:
    """Follow the task that was sent first, and the same call for the other application."""
    begin("Asking until a task has ended", "The task's id and the application's name are enough.", actions.follow)
    ended = stage.follow(waiting)
    check(ended.result == described("nordic-foods", 1001), "the task that had waited describes nordic-foods' company")
    console.print("\nThe same call for the other application finds that one's own company 1001.")
    other = stage.follow(send_task("crm.tasks.lime.get_lime_company", stage.alpine_tools, 1001))
    check(other.result == described("alpine-tools", 1001), "the same call for alpine-tools describes its own company")


def stop_worker(stage: Stage, worker: Worker) -> None:
    """Stop the worker, and count."""
    begin("Stopping the worker", "On SIGTERM it lets running tasks end, and exits with 0.")
    started = time.perf_counter()
    exit_code = worker.stop()
    console.print(f"SIGTERM, and {time.perf_counter() - started:.1f} s later exit code {exit_code}")
    check(exit_code == 0, "the worker's exit code is 0")
    events = stage.events
    events.take_the_rest()
    check(events.heard == Counter(events.awaited), f"{len(events.awaited)} tasks had one event each")
