"""An event handler that forks."""

from __future__ import annotations

from pathlib import Path

from limetask import Application, Event, event_handler

from .tasks import fork_and_wait, fork_and_wait_async, start_and_hold


@event_handler("forking.ended.#")
def fork_in_a_handler(app: Application, event: Event) -> None:
    """Fork a process that goes on in the handler, and leave its exit code in a file."""
    code = fork_and_wait(app, event.body["end"])
    _leave_code(event.body["path"], code)


@event_handler("forking.ended.#")
async def fork_in_an_async_handler(app: Application, event: Event) -> None:
    """The same in a coroutine."""
    code = await fork_and_wait_async(app, event.body["end"])
    _leave_code(event.body["path"] + ".async", code)


def _leave_code(path: str, code: int) -> None:
    Path(path).write_text(str(code))


@event_handler("forking.held.#")
def start_and_hold_in_a_handler(app: Application, event: Event) -> None:
    """Start a process that lives on, and run until the file for the release exists."""
    start_and_hold(app, event.body["way"], event.body["path"])
