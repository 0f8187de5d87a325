"""What the fault tests share: a ledger, workers that run its tasks, and servers that may be broken."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from limetask import Settings, configure
from tests.faults.ledger import EventLog, Ledger
from tests.faults.load import Book
from tests.faults.nodes import Node, node
from tests.worker import Worker

_PACKAGES = Path(__file__).parent / "packages"
_FAILPOINTS = Path(__file__).parent / "failpoints"

IMPATIENCE_SECONDS = 3
"""After so many seconds the broker of `impatient_settings` takes away what is not acked."""

StartWorker = Callable[..., Worker]
OpenLedger = Callable[[Settings], Ledger]


@pytest.fixture
def open_ledger(tmp_path: Path) -> Iterator[OpenLedger]:
    """Open a ledger for some settings, which are in force in this process from then on."""
    with ExitStack() as stack:

        def open_it(settings: Settings) -> Ledger:
            configure(settings)
            events = EventLog(settings)
            events.open()
            stack.callback(events.close)
            return Ledger(settings, Book(tmp_path / "trace"), events)

        yield open_it


@pytest.fixture
def employ(start_worker: StartWorker) -> StartWorker:
    """Start a worker that runs a ledger's tasks: `employ(ledger, "--slots", "4")`. `settings=` gives it others.

    `inside=` are the words of a command that has it run somewhere else, as on another host.
    """

    def start(
        ledger: Ledger,
        *arguments: str,
        settings: Settings | None = None,
        inside: Sequence[str] = (),
        **environment: str,
    ) -> Worker:
        paths = {"PYTHONPATH": os.pathsep.join(map(str, (_PACKAGES, _FAILPOINTS)))}
        worker = start_worker(
            settings or ledger.settings,
            *("faulty", "--log-level", "warning"),
            *arguments,
            inside=inside,
            **(paths | environment),
        )
        return ledger.employ(worker)

    return start


@pytest.fixture
def quick_settings(settings: Settings) -> Settings:
    """Settings of this test alone whose sends give up soon."""
    return replace(settings, send_timeout=3.0)


@pytest.fixture(scope="session")
def _breakable_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with node("rabbitmq", tmp_path_factory.mktemp("services")) as started:
        yield started


@pytest.fixture
def own_broker(_breakable_broker: Node) -> Node:
    """A RabbitMQ that this test may break: no other test uses it meanwhile."""
    _breakable_broker.up()  # should another test have left it broken
    return _breakable_broker


@pytest.fixture
def own_broker_settings(own_broker: Node, sqlite_url: str) -> Settings:
    """Settings with that broker whose sends give up soon."""
    namespace = f"test-{uuid.uuid4().hex[:12]}"
    return Settings(broker_url=own_broker.url, namespace=namespace, store_url=sqlite_url, send_timeout=3.0)


@pytest.fixture
def impatient_settings(own_broker: Node, own_broker_settings: Settings) -> Iterator[Settings]:
    """Settings, in force, with a broker whose consumer timeout is three seconds."""
    milliseconds = IMPATIENCE_SECONDS * 1000
    set_both = "[application:set_env(rabbit, K, V) || {K, V} <- [{consumer_timeout, %d}, {channel_tick_interval, %d}]]."
    own_broker.ctl("eval", set_both % (milliseconds, 500))
    configure(own_broker_settings)
    yield own_broker_settings
    own_broker.ctl("eval", set_both % (1_800_000, 60_000))


@pytest.fixture
def own_database(tmp_path: Path) -> Iterator[Node]:
    """A PostgreSQL that this test may break."""
    with node("postgresql", tmp_path / "services") as started:
        yield started
