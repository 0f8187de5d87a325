"""limetask, with its statuses in PostgreSQL or SQLite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.place import Place
from benchmarks.systems.system import BlockingClient, Client, System, program

APP = "acme"
SLOTS = 8
SPREAD = "spread"
"""In the place of a task's name, for `send_many`: each task has another name, and another application."""

TASK_NAMES = 200
APPLICATIONS = 100

_MODULE = "benchmarks.apps.limetask_app"
_WAIT_SECONDS = 60


class _Client(BlockingClient):
    def __init__(self) -> None:
        import limetask

        self._limetask = limetask

    def send(self, task: str, argument: str) -> Any:
        return self._limetask.send_task(f"{_MODULE}.{task}", APP, argument)

    def send_many(self, task: str, arguments: Sequence[str]) -> list[Any]:
        calls = [self._call(task, number, argument) for number, argument in enumerate(arguments)]
        return list(self._limetask.send_tasks(calls))

    def wait(self, handle: Any) -> None:
        handle.wait(_WAIT_SECONDS)

    def read(self, handle: Any) -> None:
        assert self._limetask.get_status(handle.id, APP).is_completed()

    def close(self) -> None:
        from limetask.client import close_default_client

        close_default_client()

    def _call(self, task: str, number: int, argument: str) -> Any:
        if task == SPREAD:
            name, app = f"noop_{number % TASK_NAMES}", f"{APP}-{number % APPLICATIONS}"
        else:
            name, app = task, APP
        return self._limetask.TaskCall(f"{_MODULE}.{name}", app, (argument,))


def process_role(command_line: Sequence[str]) -> str:
    """Return what a process of a worker is, by its command line."""
    roles = {"limetask_worker.child": "task process", "limetask_worker.recorder": "recorder"}
    return next((role for module, role in roles.items() if module in command_line), "supervisor")


def _client(_place: Place) -> Client:
    return _Client()


def _make_tables(place: Place) -> None:
    # Here, since drivers import this module, and their memory is measured.
    from limetask_worker.schema import upgrade

    upgrade(place.store_url)


def _command(processes: int) -> Sequence[str | Path]:
    options = ["--processes", str(processes), "--slots", str(SLOTS), "--log-level", "warning"]
    return [program("limetask-worker"), _MODULE, *options]


LIMETASK_POSTGRESQL = System(
    name="limetask-postgresql",
    title="limetask, PostgreSQL",
    packages=("limetask", "pika"),
    module="limetask",
    results="postgresql",
    notes={
        "queue": "quorum (always)",
        "sends confirmed": "yes (always)",
        "ack": "early: once its start is recorded",
        "event a task": "yes, confirmed",
        "at a time": "8 slots a process (default)",
        "settings": "defaults",
        "sends many by": "`send_tasks`",
        "waits by": "the end's event, which comes to the sender",
    },
    make_client=_client,
    command=_command,
    make_tables=_make_tables,
    slots=SLOTS,
    recorder="limetask_worker.recorder",
)

LIMETASK_SQLITE = replace(LIMETASK_POSTGRESQL, name="limetask-sqlite", title="limetask, SQLite", results="sqlite")
