"""Event handlers that take as long as their event says; the file LASTING_TRACE has a line for each begin and end."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from pathlib import Path

from limetask import Application, Event, Retry, event_handler

ONCE_MORE = Retry(times=1, delay=0.0)


def note(handler: str, what: str, event: Event) -> None:
    """Add a line: the handler, what happens in it, the event's number, and the process."""
    with Path(os.environ["LASTING_TRACE"]).open("a") as trace:
        trace.write(f"{handler} {what} {event.body['number']} {os.getpid()}\n")


@event_handler("lasting.long", name="lasting.long")
def long(app: Application, event: Event) -> None:
    """Take the time that the event says."""
    note("long", "begun", event)
    time.sleep(event.body["seconds"])
    note("long", "ended", event)


@event_handler("lasting.neighbour", name="lasting.neighbour", concurrency=2)
async def neighbour(app: Application, event: Event) -> None:
    """Take the time that the event says, beside the others."""
    note("neighbour", "begun", event)
    await asyncio.sleep(event.body["seconds"])
    note("neighbour", "ended", event)


@event_handler("lasting.short", name="lasting.short")
def short(app: Application, event: Event) -> None:
    """Take the time that the event says, which is short here."""
    note("short", "begun", event)
    time.sleep(event.body["seconds"])
    note("short", "ended", event)


@event_handler("lasting.retried", name="lasting.retried", retry=ONCE_MORE)
def retried(app: Application, event: Event) -> None:
    """Take the time that the event says, and be called once more if that is too long."""
    note("retried", "begun", event)
    time.sleep(event.body["seconds"])
    note("retried", "ended", event)


@event_handler("lasting.held", name="lasting.held", time_limit=1.0)
def held(app: Application, event: Event) -> None:
    """Hold Python's global lock for the time that the event says, the first time only."""
    is_first = f"held begun {event.body['number']} " not in Path(os.environ["LASTING_TRACE"]).read_text()
    note("held", "begun", event)
    if is_first:
        ctypes.PyDLL(None).sleep(int(event.body["seconds"]))
    note("held", "ended", event)
