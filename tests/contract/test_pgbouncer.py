"""The store behind PgBouncer, which gives each transaction another session of the server, or each client one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from sqlalchemy import make_url

from limetask.errors import StoreError, StoreUrlError
from limetask.store import Store
from limetask_worker import schema
from limetask_worker.store_writer import StoreWriter
from tests.contract.records import SENT, ended, new_id, started, status_of

_SCRIPT = Path(__file__).parents[2] / "scripts" / "pgbouncer"
_TURNS = 30
_SESSIONS = 2  # far fewer than clients, so that they get each other's

Pooled = Callable[[str], str]


def run_script(verb: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([_SCRIPT, verb], env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def pooled(postgresql_url: str, tmp_path: Path) -> Iterator[Pooled]:
    """Start a PgBouncer with these settings, and give the URL of an empty database behind it."""
    with ExitStack() as stack:

        def start(settings: str) -> str:
            environment = os.environ | {
                "LIMETASK_SERVICES_DIR": str(tmp_path / "services"),
                "LIMETASK_PGBOUNCER_SETTINGS": settings,
            }
            stack.callback(run_script, "down", environment)
            up = run_script("up", environment)
            if up.returncode != 0:
                pytest.skip(f"scripts/pgbouncer cannot start one: {up.stderr}")
            database = make_url(postgresql_url).database
            return make_url(up.stdout.strip()).set(database=database).render_as_string(hide_password=False)

        yield start


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_the_store_may_be_behind_pgbouncer(pooled: Pooled, mode: str) -> None:
    """The schema is made, and several processes write and read at the same time, over and over again."""
    sessions = _SESSIONS if mode == "transaction" else 20
    url = pooled(f"pool_mode = {mode}\ndefault_pool_size = {sessions}")
    schema.upgrade(url)
    with ThreadPoolExecutor(6) as threads:
        for done in [threads.submit(write_and_read, url) for _ in range(6)]:
            done.result()


def write_and_read(url: str) -> None:
    """Do what a recorder and a reader do, more often than psycopg waits for before it prepares a statement."""
    with closing(Store(url)) as store, closing(StoreWriter(url)) as writer:
        for _ in range(_TURNS):
            task_id = new_id()
            writer.merge([started(task_id)])
            assert store.read(task_id, "shop") == status_of(started(task_id))
            writer.merge([ended(task_id)])
            assert store.read(task_id, "shop") == status_of(ended(task_id))
            writer.prune(SENT)


def test_what_a_pooler_refuses_by_default_is_explained(pooled: Pooled) -> None:
    """PgBouncer lets clients set little at their start unless it is told to: the error says how."""
    url = pooled("ignore_startup_parameters = extra_float_digits")
    with closing(Store(url)) as store, pytest.raises(StoreError, match="ignore_startup_parameters = options"):
        store.read(new_id(), "shop")


def prepared_statements(url: str) -> int:
    """How many statements a Store has prepared on its session after many reads."""
    with closing(Store(url)) as store:
        for _ in range(10):
            store.read(new_id(), "shop")
        with store._engine.connect() as connection:
            count: int = connection.exec_driver_sql("SELECT count(*) FROM pg_prepared_statements").scalar_one()
            return count


def test_statements_are_prepared_by_postgresql_itself(postgresql_url: str) -> None:
    """Where no pooler is in between; and the URL may ask for it, or for never."""
    schema.upgrade(postgresql_url)
    assert prepared_statements(postgresql_url) > 0
    assert prepared_statements(f"{postgresql_url}?prepare_threshold=0") > 0
    assert prepared_statements(f"{postgresql_url}?prepare_threshold=1000") == 0


def test_statements_are_prepared_behind_a_pooler_only_if_asked_for(pooled: Pooled) -> None:
    """Some can do with it: PgBouncer from 1.21 on, with max_prepared_statements, or with a session for each client."""
    url = pooled("pool_mode = session")
    schema.upgrade(url)
    assert prepared_statements(url) == 0
    assert prepared_statements(f"{url}?prepare_threshold=2") > 0


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("prepare_threshold=many", "a whole number"),
        ("prepare_threshold=-1", "a whole number"),
        ("connect_timeout=soon", "a whole number"),
        ("connect_timeout=1&connect_timeout=2", "given twice"),
        ("sslmode=perhaps", "verify-full"),
        ("target_session_attrs=writable", "read-write"),
        ("timeout=5", "no such option"),
        ("autocommit=1", "no such option"),
        ("row_factory=dict", "no such option"),
    ],
)
@pytest.mark.parametrize("use", [Store, StoreWriter, schema.upgrade])
def test_a_wrong_option_is_explained(use: Callable[[str], object], query: str, problem: str) -> None:
    """An option that libpq does not know, or whose value cannot be right, is refused before anybody connects."""
    with pytest.raises(StoreUrlError, match=problem) as caught:
        use(f"postgresql://someone:s3cr3t@127.0.0.1:1/statuses?{query}")
    assert query.partition("=")[0] in str(caught.value)
    assert "s3cr3t" not in str(caught.value)
