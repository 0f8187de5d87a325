"""What all tests share: the services, and for each test a namespace, a store and workers of its own."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from limetask import Settings, configure
from limetask.client import close_default_client
from tests.broker import delete_namespace
from tests.databases import new_postgresql_database
from tests.services import BROKER_URL, POSTGRES_URL, start_services
from tests.worker import Worker

_services = pytest.StashKey[ExitStack]()
_WITHOUT_SERVICES = "tests/unit"


def pytest_configure(config: pytest.Config) -> None:
    """Start the services once, before pytest-xdist starts its workers, which inherit the environment."""
    _let_signals_in()
    is_xdist_worker = hasattr(config, "workerinput")
    only_unit_tests = bool(config.args) and all(_WITHOUT_SERVICES in argument for argument in config.args)
    if not is_xdist_worker and not only_unit_tests and not config.option.collectonly:
        config.stash[_services] = start_services()


def _let_signals_in() -> None:
    """Have Ctrl-C and hang-ups arrive here, and in the programs that tests start.

    A shell starts what it runs in the background (`make test &` in a script) with SIGINT and SIGQUIT ignored, `nohup`
    with SIGHUP, and whoever is started from there inherits that: https://pubs.opengroup.org/onlinepubs/9699919799/utilities/V3_chap02.html#tag_18_11
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def pytest_unconfigure(config: pytest.Config) -> None:
    services = config.stash.get(_services, None)
    if services is not None:
        services.close()


@pytest.fixture(scope="session")
def broker_url() -> str:
    """The URL of a real RabbitMQ."""
    return os.environ[BROKER_URL]


@pytest.fixture
def namespace(broker_url: str) -> Iterator[str]:
    """A namespace of this test's own: its queues and exchanges are deleted afterwards."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    delete_namespace(broker_url, name)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of an SQLite store that does not exist yet."""
    return f"sqlite:///{tmp_path / 'status.db'}"


@pytest.fixture
def postgresql_url() -> Iterator[str]:
    """The URL of an empty PostgreSQL database, dropped afterwards."""
    with new_postgresql_database(os.environ[POSTGRES_URL]) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty store: the test runs once with each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(autouse=True)
def _own_client() -> Iterator[None]:
    """No test inherits another's settings or connections."""
    yield
    close_default_client()
    configure(Settings())


@pytest.fixture
def settings(broker_url: str, namespace: str, sqlite_url: str) -> Settings:
    """Settings for this test alone, in force in this process, with an SQLite store."""
    return _in_force(Settings(broker_url=broker_url, namespace=namespace, store_url=sqlite_url))


@pytest.fixture
def settings_for_each_store(broker_url: str, namespace: str, store_url: str) -> Settings:
    """The same with each kind of store."""
    return _in_force(Settings(broker_url=broker_url, namespace=namespace, store_url=store_url))


def _in_force(settings: Settings) -> Settings:
    configure(settings)
    return settings


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Start `limetask-worker` processes: `start_worker(settings, "shop", "--slots", "4")`. All are stopped after."""
    with ExitStack() as stack:

        def start(
            settings: Settings,
            *arguments: str,
            ready: bool = True,
            folder: Path | None = None,
            inside: Sequence[str] = (),
            **environment: str,
        ) -> Worker:
            log = tmp_path / f"worker-{uuid.uuid4().hex[:6]}.log"
            worker = Worker(settings, arguments, environment, log, folder, inside)
            stack.callback(worker.kill)
            if ready:
                worker.wait_until_ready()
            return worker

        yield start
