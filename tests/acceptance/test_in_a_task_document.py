"""docs/in-a-task.md, followed to the letter: its files are loaded, its programs run, its databases restarted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy

from limetask import Settings, Status, hooks, log_thread, send_task
from limetask_worker import process_hooks
from tests.acceptance.test_readme import ROOT, files, logged, programs, run_program, write_files
from tests.worker import Worker
from tests.worker import write_files as write

PAGE = ROOT / "docs" / "in-a-task.md"

DJANGO_SETTINGS = """
    import os
    from urllib.parse import urlsplit

    url = urlsplit(os.environ["CRM_DATABASE_URL"])
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.postgresql", "NAME": url.path[1:], "USER": url.username,
            "PASSWORD": url.password, "HOST": url.hostname, "PORT": url.port,
            "CONN_MAX_AGE": 3600, "CONN_HEALTH_CHECKS": True,
        }
    }
    USE_TZ = True
"""
QUERIES = {
    "my_package.crm": """
    from sqlalchemy import text
    from limetask import task

    @task
    def backend(app):
        return app.session.execute(text("SELECT pg_backend_pid()")).scalar_one()
    """,
    "my_package.django_platform": """
    from django.db import connection
    from limetask import task

    @task
    def backend(app):
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            return cursor.fetchone()[0]
    """,
}


def write_page(folder: Path) -> None:
    write_files(PAGE, folder)
    write(folder, {"django_settings.py": DJANGO_SETTINGS})


def test_the_programs_work(
    settings: Settings, start_worker: Callable[..., Worker], tmp_path: Path, postgresql_url: str
) -> None:
    """Every program prints what the page says it prints, and the worker logs what the page says it logs."""
    write_page(tmp_path)
    worker = start_worker(
        settings, "my_package", "--processes", "1", "--log-format", "json", **environment(postgresql_url)
    )
    assert (len(files(PAGE)), len(programs(PAGE))) == (4, 1)
    for program, shown in programs(PAGE):
        ran = run_program(settings, program, tmp_path)
        assert (ran.stdout, ran.stderr) == (shown, "")
    assert worker.stop() == 0
    assert len(logged(PAGE)) == 3
    assert [line for line in logged(PAGE) if line not in worker.log] == []


@pytest.mark.parametrize("module", QUERIES)
def test_a_restarted_database_fails_no_task(
    settings: Settings, start_worker: Callable[..., Worker], tmp_path: Path, postgresql_url: str, module: str
) -> None:
    """With each of the page's factories a task succeeds though all connections to its database were cut before."""
    write_page(tmp_path)
    write(tmp_path, {"my_package/queries.py": QUERIES[module]})
    start_worker(
        settings,
        "my_package",
        *("--processes", "1", "--slots", "1"),
        **environment(postgresql_url),
        LIMETASK_APPLICATION_FACTORY=f"{module}:open_application",
    )
    first, again = (send_task("my_package.queries.backend", "acme").wait(20) for _ in range(2))
    assert first.status is Status.SUCCESS
    assert again.result == first.result, "a pool keeps its connection"
    cut_connections(postgresql_url)
    ended = send_task("my_package.queries.backend", "acme").wait(20)
    assert (ended.status, ended.error) == (Status.SUCCESS, None)
    assert ended.result != first.result


def environment(database_url: str) -> dict[str, str]:
    return {"CRM_DATABASE_URL": database_url, "DJANGO_SETTINGS_MODULE": "django_settings"}


def cut_connections(database_url: str) -> None:
    engine = sqlalchemy.create_engine(database_url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid != pg_backend_pid()"
        cut = connection.execute(sqlalchemy.text(f"SELECT count(pg_terminate_backend(pid)) {others}")).scalar_one()
    assert cut


def test_the_numbers_are_true() -> None:
    """The deadlines and bounds that the page, and the decorator's description, name are those of the code."""
    page = PAGE.read_text()
    assert f"together they have {process_hooks.STOPPING_SECONDS:g} seconds" in page
    assert f"have {process_hooks.STOPPING_SECONDS:g} seconds" in (hooks.worker_process_stopping.__doc__ or "")
    assert f"Up to {log_thread._MAX_LINES:,} lines wait ({log_thread._MAX_EXCEPTIONS:,} of those" in page
