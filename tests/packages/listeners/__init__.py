"""Tasks, and event handlers that leave traces in the folder that LISTENERS_TRACES names: a line for each call."""

from __future__ import annotations

import os
import time
from pathlib import Path

from limetask import Application, Event, Retry, TaskFailure, event_handler, on_failure, on_success, task

SOON = Retry(times=2, delay=0.0)


def leave_trace(handler: str, app: Application, event: Event) -> None:
    """Add a line: the event's id, its application, and what it tells."""
    about = event.result if event.error is None else event.error.message
    with (Path(os.environ["LISTENERS_TRACES"]) / handler).open("a") as traces:
        moment = event.finished_at or event.sent_at
        told = about if event.body is None else event.body
        traces.write(f"{event.id} {app.identifier} {told} {moment and moment.isoformat()}\n")


@task
def count(app: Application, number: int) -> int:
    """Succeed."""
    return number


@task
def refuse(app: Application, number: int) -> None:
    """Fail."""
    raise TaskFailure(str(number))


@event_handler(on_success("listeners.*"), name="listeners.every_success")
def every_success(app: Application, event: Event) -> None:
    """Handle all successes."""
    leave_trace("every_success", app, event)


@event_handler(on_success(count), on_failure(refuse), "shop.#", name="listeners.several", concurrency=4)
async def several(app: Application, event: Event) -> None:
    """Handle what fits several patterns, in a coroutine."""
    leave_trace("several", app, event)


@event_handler(on_success(count), name="listeners.every_third_fails", retry=SOON)
def every_third_fails(app: Application, event: Event) -> None:
    """Fail for every third number, each time."""
    if event.result % 3 == 0:
        raise ValueError(f"number {event.result} is a multiple of three")
    leave_trace("every_third_fails", app, event)


@event_handler("core.task.listeners.refuse.failure.v1", name="listeners.slow")
def slow(app: Application, event: Event) -> None:
    """Take long."""
    leave_trace("slow_begun", app, event)
    time.sleep(5.0)
    leave_trace("slow", app, event)


@event_handler(on_failure(refuse), name="listeners.everywhere", mode="broadcast")
def everywhere(app: Application, event: Event) -> None:
    """Handle failures in every daemon."""
    leave_trace(f"everywhere.{os.getppid()}", app, event)
