"""What a process does before its loop runs: it imports users' code and calls its hooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from limetask.settings import current_settings
from limetask_worker.loading import check_threads, load, load_factory
from limetask_worker.log_thread import hand_over_lines
from limetask_worker.process_hooks import process_hooks


def prepare(packages: Sequence[str], declared: Callable[[], Mapping[str, Any]]) -> None:
    """Import `packages`, and the application factory if they declare something to do, and call the hooks then.

    To be called in the main thread while no loop runs, which is where a program's own imports are: `asyncio.run` works
    there, and a task that is created is an error, where else it would run beside the connection to the broker.

    Raises LoadingError or ConfigurationError for what another start would not mend.
    """
    settings = current_settings()
    load(packages)
    if declared():
        load_factory(settings.application_factory)
        process_hooks.start()
        check_threads("the hooks of @worker_process_started ran")
    hand_over_lines()
