"""The whole demo: it prepares, plays its sections, and removes what it has made however it ends."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

from crm.application import open_application

from lime_task import LimetaskError
from limetask.client import close_default_client
from limetask.topology import Names

from . import DemoError, life, many, outcomes
from .broker import delete_from_broker, running_broker
from .events import listen
from .screen import console, show_failure
from .stage import Stage
from .worker import Worker

DEADLINE_SECONDS = 120
# Longer than a worker gets to stop. A broker that does not answer would else be waited for without end.
CLEANUP_STEP_SECONDS = 60
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_interruptions: list[int] = []


def main() -> int:
    """Run the demo and return its exit code."""
    # Each line at once, into a pipe as well; and what a terminal's encoding lacks must not end the demo.
    sys.stdout.reconfigure(line_buffering=True, errors="replace")  # type: ignore[union-attr]
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.WARNING)
    for number in SIGNALS:
        signal.signal(number, _leave)
    signal.signal(signal.SIGALRM, _give_up)
    cleanup = ExitStack()
    try:
        play(cleanup)
    except BaseException as exc:  # noqa: BLE001 - a signal in the midst of threading's own code becomes a RuntimeError
        if not _interruptions:
            show_failure(exc)
        exit_code = 128 + _interruptions[0] if _interruptions else 1
    else:
        exit_code = 0
    return exit_code if clean_up(cleanup) else 1


def clean_up(cleanup: ExitStack) -> bool:
    """Stop and remove everything; return False if something may be left."""
    ignore_signals()
    signal.signal(signal.SIGALRM, _give_up_step)
    signal.setitimer(signal.ITIMER_REAL, CLEANUP_STEP_SECONDS, CLEANUP_STEP_SECONDS)
    try:
        cleanup.close()
    except Exception as exc:  # noqa: BLE001 - whatever it was, the demo ends here
        show_failure(exc)
        console.print("Something may be left of it, on the broker in the namespace that it named.")
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if _interruptions:
        console.print("\nInterrupted: everything that the demo had started is stopped.")
    return True


def play(cleanup: ExitStack) -> None:
    """Prepare the demo and run it."""
    started = time.monotonic()
    broker_url = cleanup.enter_context(running_broker())
    signal.alarm(DEADLINE_SECONDS)
    folder = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="limetask-demo-"))
    namespace = f"demo-{secrets.token_hex(4)}"
    os.environ.update(
        LIMETASK_BROKER_URL=broker_url,
        LIMETASK_STORE_URL=f"sqlite:///{folder}/status.db",
        LIMETASK_NAMESPACE=namespace,
        LIMETASK_APPLICATION_FACTORY="crm.application:open_application",
        CRM_DATABASES=folder,
    )
    console.print(f"On the broker it works in the namespace {namespace}, and deletes it in the end.")
    life.load_data()
    cleanup.callback(delete_from_broker, broker_url, namespace)
    events = cleanup.enter_context(listen(broker_url, Names(namespace).events_exchange))
    cleanup.callback(close_default_client)
    nordic_foods = cleanup.enter_context(open_application("nordic-foods"))
    alpine_tools = cleanup.enter_context(open_application("alpine-tools"))
    play_sections(cleanup, Stage(events, nordic_foods, alpine_tools), Path(folder))
    console.print(f"\nAll of it is true, and took {time.monotonic() - started:.0f} s.", style="bold green")


def play_sections(cleanup: ExitStack, stage: Stage, folder: Path) -> None:
    """Run the sections in their order."""
    waiting = life.send_without_worker(stage)
    worker = Worker(folder / "worker.log")
    cleanup.callback(worker.stop)
    try:
        life.start_worker(worker)
        life.follow_tasks(stage, waiting)
        updated = outcomes.update_deals(stage)
        outcomes.fail_on_purpose(stage)
        outcomes.fail_by_mistake(stage)
        outcomes.ask_for_another_applications_task(stage, updated)
        outcomes.answer_browser(updated)
        many.run_late_task_twice(stage)
        many.measure_round_trips(stage)
        many.rate_many_companies(stage)
        life.stop_worker(stage, worker)
    except (DemoError, LimetaskError):
        console.print("\nThe last lines of the worker:", *worker.lines[-20:], sep="\n", markup=False, soft_wrap=True)
        raise


def ignore_signals() -> None:
    """From now on things are stopped and removed, which no second Ctrl-C is to interrupt."""
    signal.alarm(0)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _leave(number: int, _frame: object) -> NoReturn:
    ignore_signals()
    _interruptions.append(number)
    raise KeyboardInterrupt


def _give_up(_number: int, _frame: object) -> NoReturn:
    raise DemoError(f"the demo did not end within {DEADLINE_SECONDS} s")


def _give_up_step(_number: int, _frame: object) -> NoReturn:
    raise DemoError(f"what the demo had started could not be stopped and removed within {CLEANUP_STEP_SECONDS} s")


if __name__ == "__main__":
    sys.exit(main())
