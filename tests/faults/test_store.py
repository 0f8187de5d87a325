"""The status store is gone for a while: tasks go on, and their records are all there afterwards."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from limetask import Settings
from tests.databases import end_sessions, set_read_only
from tests.faults.conftest import OpenLedger, StartWorker
from tests.faults.form import in_form
from tests.faults.ledger import Ledger, now
from tests.faults.load import Load
from tests.faults.nodes import Node
from tests.waiting import eventually

_DOWN_SECONDS = in_form(3.0, 20.0)
_DISK_BYTES = 16 * 1024 * 1024


def run_while_the_store_is_down(
    fault: str, ledger: Ledger, employ: StartWorker, down: Callable[[], AbstractContextManager[None]]
) -> None:
    """Break the store under load; meanwhile tasks must end, and afterwards be recorded."""
    employ(ledger, "--processes", "2", "--slots", "4")
    with Load(ledger.book, in_form(300, 2000), in_form(80, 100), seconds=0.01) as load:
        load.wait_for_share(0.3)
        with down():
            begun = now()
            time.sleep(_DOWN_SECONDS)
            ended_meanwhile = [event for event in ledger.events.all() if event.finished_at > begun]
        fault_ended = now()
        assert ended_meanwhile, "no task ended while the store was down"
        recovered = first_record_after(ledger, fault_ended)
    verdict = ledger.check(fault, fault_ended, recovered)
    assert not verdict.failures


def first_record_after(ledger: Ledger, moment: float) -> float:
    """Return when the newest of the tasks that were sent by then is recorded."""
    newest = ledger.book.confirmed[-1]
    eventually(lambda: (status := ledger.status_of(newest)) is not None and status.is_completed(), 60, "a record")
    return max(now(), moment)


def test_postgresql_dies_and_comes_back(
    quick_settings: Settings, own_database: Node, open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """An immediate shutdown of PostgreSQL, as in a crash, and a start with recovery."""

    @contextmanager
    def down() -> Iterator[None]:
        own_database.kill(signal.SIGQUIT)  # what pg_ctl stop -m immediate sends
        yield
        own_database.up()

    ledger = open_ledger(replace(quick_settings, store_url=own_database.url))
    run_while_the_store_is_down("PostgreSQL stopped at once, and started again", ledger, employ, down)


def test_postgresql_answers_read_only_and_then_not(
    quick_settings: Settings, postgresql_url: str, open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """A failover behind one address: the new server takes no writes yet when the sessions of the old one are cut."""

    @contextmanager
    def down() -> Iterator[None]:
        set_read_only(postgresql_url)
        end_sessions(postgresql_url)
        yield
        set_read_only(postgresql_url, read_only=False)

    ledger = open_ledger(replace(quick_settings, store_url=postgresql_url))
    run_while_the_store_is_down("PostgreSQL fails over, and takes no writes at first", ledger, employ, down)


def test_sqlite_is_locked_by_another_program(
    quick_settings: Settings, sqlite_url: str, open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """Somebody else holds the exclusive lock for a while."""

    @contextmanager
    def down() -> Iterator[None]:
        path = sqlite_url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path, isolation_level=None, timeout=20)) as other:
            other.execute("BEGIN EXCLUSIVE")
            yield
            other.execute("ROLLBACK")

    run_while_the_store_is_down("SQLite locked by another program", open_ledger(quick_settings), employ, down)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with little space, unmounted afterwards."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_the_disk_under_sqlite_is_full(
    quick_settings: Settings, small_disk: Path, open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """There is no space left for a while."""

    @contextmanager
    def down() -> Iterator[None]:
        ballast = small_disk / "ballast"
        fill(ballast)
        yield
        ballast.unlink()

    ledger = open_ledger(replace(quick_settings, store_url=f"sqlite:///{small_disk / 'status.db'}"))
    run_while_the_store_is_down("disk full under SQLite", ledger, employ, down)


def fill(path: Path) -> None:
    """Write a file until the disk has no space left."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while os.write(descriptor, b"\0" * 4096):
            pass
    except OSError:
        return
    finally:
        os.close(descriptor)
