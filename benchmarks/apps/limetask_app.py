"""The tasks for limetask."""

from __future__ import annotations

import time

from benchmarks.starts import note_start
from benchmarks.systems.limetask import TASK_NAMES
from limetask import Application, task


@task
def noop(_app: Application, argument: str) -> None:
    """Do nothing."""
    note_start(argument)


@task
def sleep_1_ms(_app: Application, argument: str) -> None:
    """Sleep for a millisecond."""
    note_start(argument)
    time.sleep(0.001)


@task
def sleep_10_ms(_app: Application, argument: str) -> None:
    """Sleep for ten milliseconds."""
    note_start(argument)
    time.sleep(0.01)


# The same task under many names, for the measures of scale.
for _number in range(TASK_NAMES):

    @task(name=f"{__name__}.noop_{_number}")
    def _noop(_app: Application, argument: str) -> None:
        note_start(argument)
