"""Users with no more permissions than `docs/security.md` gives them, on a broker of these tests' own."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pika.exceptions import ChannelClosedByBroker

from limetask import BrokerRefusedError, Settings, Status, WaitTimeoutError, configure, dead_letters, send_task
from limetask.amqp import Connection
from limetask.client import close_default_client
from limetask.delays import Delays
from limetask.message import Envelope
from limetask.topology import Names, delay_topology
from tests.broker import channel_to, declare_namespace, queue_length, take_all
from tests.proxy import proxy_to
from tests.services import BROKER_URL
from tests.waiting import eventually
from tests.worker import Worker, environment_of

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "security.md"
SCRIPT = ROOT / "scripts" / "rabbitmq"
PASSWORD = "s3cret-of-the-test"
COMMAND = re.compile(r"^rabbitmqctl set_permissions -p / (\w+) (.*)$", re.MULTILINE)


class OwnBroker:
    """A broker whose users these tests may change: no other test uses it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def up(self) -> str:
        """Start it unless it runs, and return its URL for the administrator."""
        return self._run("up")

    def ctl(self, *arguments: str) -> None:
        """Run rabbitmqctl."""
        self._run("ctl", *arguments)

    def down(self) -> None:
        """Stop it and remove its data."""
        self._run("down")

    def _run(self, *arguments: str) -> str:
        others = {name: value for name, value in os.environ.items() if name != BROKER_URL}
        environment = others | {"LIMETASK_SERVICES_DIR": str(self._folder)}
        done = subprocess.run([SCRIPT, *arguments], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnBroker]:
    """The broker, stopped after the last test here."""
    started = OwnBroker(tmp_path_factory.mktemp("services"))
    try:
        started.up()
        yield started
    finally:
        started.down()


@pytest.fixture(scope="module")
def broker_url(broker: OwnBroker) -> str:
    """The URL of that broker for its administrator."""
    return broker.up()


def permissions_of(role: str, namespace: str) -> list[str]:
    """Return a role's patterns (configure, write, read) as they are documented, for another namespace."""
    documented = dict(COMMAND.findall(DOCUMENT.read_text()))
    return shlex.split(documented[role].replace("limetask", namespace))


@pytest.fixture(scope="module")
def add_user(broker: OwnBroker) -> Callable[[str], None]:
    """Make a user, once: `rabbitmqctl` takes a second each time."""
    return cache(lambda user: broker.ctl("add_user", user, PASSWORD))


@pytest.fixture
def settings_as(broker: OwnBroker, add_user: Callable[[str], None], settings: Settings) -> Callable[..., Settings]:
    """Give the user of a documented role its permissions, or others, and return settings with that user."""

    def give(role: str, *patterns: str) -> Settings:
        add_user(role)
        broker.ctl("set_permissions", "-p", "/", role, *(patterns or permissions_of(role, settings.namespace)))
        host = urlsplit(settings.broker_url).netloc.rpartition("@")[2]
        return replace(settings, broker_url=f"amqp://{role}:{PASSWORD}@{host}/")

    return give


@pytest.fixture
def names(settings: Settings) -> Names:
    """The names of everything in this test's namespace, which is declared."""
    declare_namespace(settings.broker_url, settings.namespace)
    return Names(settings.namespace)


def test_the_setup_user_declares_everything(
    settings: Settings, settings_as: Callable[..., Settings], start_worker: Callable[..., Worker]
) -> None:
    """On an empty broker a worker with the permissions of `setup` declares, binds and works."""
    start_worker(settings_as("setup"), "shop", "--processes", "1")
    assert send_task("shop.tasks.add", "acme", 2, 3).wait(20).result == 5


class TestProducer:
    def test_it_can_send(self, settings: Settings, settings_as: Callable[..., Settings], names: Names) -> None:
        """Who may only write to the exchange of tasks can send, by name and many at once."""
        configure(settings_as("producer"))
        send_task("shop.tasks.add", "acme", 2, 3)
        assert queue_length(settings.broker_url, names.task_queue("default")) == 1

    def test_it_asks_the_store_when_it_waits(
        self,
        settings: Settings,
        settings_as: Callable[..., Settings],
        start_worker: Callable[..., Worker],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Without a reply queue `wait` comes back with the store's word, and the log says it once, without secrets."""
        start_worker(settings, "shop", "--processes", "1")
        configure(settings_as("producer"))
        for number in range(3):
            assert send_task("shop.tasks.add", "acme", number, 1).wait(20).result == number + 1

        def warnings() -> list[logging.LogRecord]:
            return [record for record in caplog.records if record.levelno >= logging.WARNING]

        eventually(warnings)  # the tasks may end before the broker has refused the reply queue
        [record] = warnings()
        assert "asking the store only" in record.getMessage()
        assert PASSWORD not in record.getMessage()

    def test_it_stops_asking_for_a_reply_queue(self, settings_as: Callable[..., Settings], names: Names) -> None:
        """After the refusal the listener gives up: the broker is not asked again and again."""
        producer = settings_as("producer")
        with proxy_to(producer.broker_url) as (proxy, url):
            configure(replace(producer, broker_url=url))
            status = send_task("shop.tasks.add", "acme", 2, 3)
            with pytest.raises(WaitTimeoutError):
                status.wait(2)  # in which it would be asked three times
            assert proxy.connections == 2  # one to send, one to listen
            close_default_client()

    def test_it_can_do_nothing_else(self, settings_as: Callable[..., Settings], names: Names) -> None:
        """It can neither read tasks, nor forge events or records, nor change what is declared."""
        url = settings_as("producer").broker_url

        def refused(use: Callable[[Any], object]) -> None:
            with channel_to(url) as channel, pytest.raises(ChannelClosedByBroker, match="ACCESS_REFUSED"):
                use(channel)

        refused(lambda channel: channel.basic_get(names.task_queue("default")))
        refused(lambda channel: channel.basic_get(names.dead_queue))
        refused(lambda channel: channel.basic_publish(names.completions_exchange, "core.task.x.success.v1", b""))
        refused(lambda channel: channel.basic_publish(names.events_exchange, "core.task.x.success.v1", b""))
        refused(lambda channel: channel.basic_publish("", names.results_queue, b""))
        refused(lambda channel: channel.basic_publish(names.dead_exchange, "", b""))
        refused(lambda channel: channel.queue_delete(names.task_queue("default")))
        refused(lambda channel: channel.queue_purge(names.task_queue("default")))

    def test_with_a_reply_queue_it_hears_of_ends(
        self,
        settings: Settings,
        settings_as: Callable[..., Settings],
        start_worker: Callable[..., Worker],
        tmp_path: Path,
    ) -> None:
        """With the permissions of `waiting` it hears of an end that no store tells it."""
        start_worker(settings, "shop", "--processes", "1")
        configure(replace(settings_as("waiting"), store_url=f"sqlite:///{tmp_path}/other.db"))

        def heard() -> bool:  # not of tasks that end before there is a reply queue
            try:
                return send_task("shop.tasks.add", "acme", 2, 3).wait(1).is_completed()
            except WaitTimeoutError:
                return False

        eventually(heard)

    def test_a_send_that_is_refused_says_so_at_once(
        self, settings: Settings, settings_as: Callable[..., Settings], names: Names
    ) -> None:
        """Who may not even write to the exchange is told so, instead of an unknown outcome after the time-out."""
        configure(replace(settings_as("nobody", "^$", "^$", "^$"), send_timeout=60))
        with pytest.raises(BrokerRefusedError, match=names.tasks_exchange) as caught:
            send_task("shop.tasks.add", "acme", 2, 3)
        assert "docs/security.md" in str(caught.value)
        assert PASSWORD not in str(caught.value)
        assert queue_length(settings.broker_url, names.task_queue("default")) == 0


class TestWorker:
    def test_it_works_without_configuring(
        self,
        settings: Settings,
        settings_as: Callable[..., Settings],
        names: Names,
        start_worker: Callable[..., Worker],
    ) -> None:
        """Without configure rights on anything of limetask it runs, moves, sends, records and sets aside."""
        start_worker(settings_as("worker"), "shop", "--processes", "1")
        assert send_task("shop.tasks.add", "acme", 2, 3).wait(20).result == 5
        assert send_task("shop.tasks.tidy", "acme").wait(20).result == "tidy"
        assert send_task("shop.tasks.forgotten", "acme").wait(20).status is Status.FAILURE
        assert queue_length(settings.broker_url, names.dead_queue) == 1
        recorded = send_task("shop.tasks.echo", "acme")
        eventually(lambda: recorded.refresh().is_completed())

    def test_it_runs_a_lost_task_again(
        self,
        settings_as: Callable[..., Settings],
        names: Names,
        start_worker: Callable[..., Worker],
        tmp_path: Path,
    ) -> None:
        """What was delivered before needs the recorder's word, which comes by a reply queue: that is permitted."""
        worker = start_worker(settings_as("worker"), "shop", "--processes", "1")
        trace = tmp_path / "trace"
        held = send_task("shop.tasks.hold_late", "acme", str(trace))
        eventually(trace.exists)
        [pid] = worker.child_pids()
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(trace.read_text().splitlines()) == 2)
        Path(f"{trace}.release").touch()
        assert held.wait(20).status is Status.SUCCESS


def test_what_must_not_be_lost_waits_for_its_permission(
    settings: Settings,
    settings_as: Callable[..., Settings],
    names: Names,
    start_worker: Callable[..., Worker],
) -> None:
    """A worker that may not publish a task's end says so, keeps it, and publishes it once it may."""
    configuring, write, read = permissions_of("worker", settings.namespace)
    worker = start_worker(
        settings_as("worker", configuring, write.replace("|completions", ""), read), "shop", "--processes", "1"
    )
    status = send_task("shop.tasks.add", "acme", 2, 3)
    eventually(lambda: f"exchange '{names.completions_exchange}'" in worker.log)
    settings_as("worker")
    assert status.wait(30).result == 5


def test_an_operator_can_retry_dead_letters(
    settings: Settings,
    settings_as: Callable[..., Settings],
    names: Names,
    start_worker: Callable[..., Worker],
) -> None:
    """Who may read dead letters and write tasks can list and retry them."""
    worker = start_worker(settings, "shop", "--processes", "1")
    assert send_task("shop.tasks.forgotten", "acme").wait(20).status is Status.FAILURE
    worker.stop()
    close_default_client()
    configure(settings_as("operator"))
    assert [letter.task_name for letter in dead_letters.list_dead_letters()] == ["shop.tasks.forgotten"]
    assert dead_letters.retry(dead_letters.ALL).count == 1
    assert queue_length(settings.broker_url, names.dead_queue) == 0
    assert queue_length(settings.broker_url, names.task_queue("default")) == 1


class TestWithoutATopology:
    @pytest.mark.parametrize("role", ["producer", "worker", "operator"])
    def test_the_error_names_what_is_missing_and_mends_it(
        self, broker: OwnBroker, settings: Settings, settings_as: Callable[..., Settings], role: str
    ) -> None:
        """Who may not declare is told what is missing; the command in the message is enough to go on."""
        configure(settings_as(role))
        with pytest.raises(BrokerRefusedError) as caught:
            send_task("shop.tasks.add", "acme", 2, 3)
        message = str(caught.value)
        assert f"exchange '{settings.namespace}.tasks' is missing" in message
        assert f"user '{role}' may not declare it" in message
        assert PASSWORD not in message
        run_command_of(message, broker)
        send_task("shop.tasks.add", "acme", 2, 3)

    def test_a_missing_queue_is_named(
        self, settings: Settings, settings_as: Callable[..., Settings], names: Names
    ) -> None:
        """One queue that somebody has deleted is enough for the error, and it is named."""
        with channel_to(settings.broker_url) as channel:
            channel.queue_delete(names.results_queue)
        configure(settings_as("producer"))
        with pytest.raises(BrokerRefusedError, match=f"queue '{names.results_queue}' is missing"):
            send_task("shop.tasks.add", "acme", 2, 3)

    def test_who_may_declare_must_be_able_to_bind(
        self, broker: OwnBroker, settings: Settings, settings_as: Callable[..., Settings]
    ) -> None:
        """A queue that its maker may not bind would be trusted by all others: that is an error, with its remedy."""
        own = f"^{settings.namespace}"
        configure(settings_as("half", own, f"^{settings.namespace}\\.(tasks|dead)$", own))
        with pytest.raises(BrokerRefusedError, match="and not bind it to exchange") as caught:
            send_task("shop.tasks.add", "acme", 2, 3)
        run_command_of(str(caught.value), broker)
        send_task("shop.tasks.add", "acme", 2, 3)


def with_delays(settings: Settings, use: Callable[[Connection, Delays], Awaitable[None]]) -> None:
    """Run `use` with an open connection and its delays, and close it."""

    async def main() -> None:
        connection = Connection(settings, "test")
        try:
            await connection.ready(10)
            await use(connection, Delays(connection, Names(settings.namespace)))
        finally:
            await connection.close()

    asyncio.run(asyncio.wait_for(main(), 60))


class TestDelays:
    def test_levels_that_exist_are_used_by_who_may_not_declare(
        self, settings: Settings, settings_as: Callable[..., Settings], names: Names
    ) -> None:
        """A worker that may configure nothing of limetask delays by levels that somebody else has declared."""
        queue = names.task_queue("default")

        async def declare(connection: Connection, _delays: Delays) -> None:
            await connection.declare(delay_topology(names, 2))

        async def publish(_connection: Connection, delays: Delays) -> None:
            await delays.publish_until_confirmed(2, queue, Envelope(b"delayed", None))

        with_delays(settings_as("setup"), declare)
        with_delays(settings_as("worker"), publish)
        assert [letter.body for letter in take_all(settings.broker_url, queue, 1)] == [b"delayed"]

    def test_a_missing_level_is_named_with_its_remedy(
        self, broker: OwnBroker, settings: Settings, settings_as: Callable[..., Settings], names: Names
    ) -> None:
        """Who may not declare the levels is told what is missing; the command in the message is enough to go on."""

        async def use(_connection: Connection, delays: Delays) -> None:
            with pytest.raises(BrokerRefusedError) as caught:
                await delays.declare(3)
            message = str(caught.value)
            assert f"exchange '{names.delay(0)}' is missing" in message
            assert "user 'worker' may not declare it" in message
            assert "run `limetask setup` as a user who has the permission" in message
            assert PASSWORD not in message
            await asyncio.to_thread(run_command_of, message, broker)
            await delays.declare(3)

        with_delays(settings_as("worker"), use)

    def test_what_is_delayed_waits_for_its_levels(
        self,
        settings: Settings,
        settings_as: Callable[..., Settings],
        names: Names,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """A publish that must not be lost logs what is missing, and goes on once `limetask setup` has been run."""
        queue = names.task_queue("default")
        setup = settings_as("setup")

        async def use(_connection: Connection, delays: Delays) -> None:
            publishing = asyncio.ensure_future(delays.publish_until_confirmed(1, queue, Envelope(b"delayed", None)))
            async with asyncio.timeout(20):
                while f"exchange '{names.delay(0)}' is missing" not in caplog.text:
                    await asyncio.sleep(0.02)
            assert not publishing.done()
            await asyncio.to_thread(run_setup, setup)
            await publishing

        with_delays(settings_as("worker"), use)
        assert [letter.body for letter in take_all(settings.broker_url, queue, 1)] == [b"delayed"]

    def test_who_may_declare_levels_must_be_able_to_write_to_them(
        self, broker: OwnBroker, settings: Settings, settings_as: Callable[..., Settings]
    ) -> None:
        """A level hands over to what its maker may write to: who may not is told, with the remedy."""
        own = f"^{settings.namespace}\\."

        async def use(_connection: Connection, delays: Delays) -> None:
            with pytest.raises(
                BrokerRefusedError, match=f"access to exchange '{settings.namespace}.delayed'"
            ) as caught:
                await delays.declare(1)
            await asyncio.to_thread(run_command_of, str(caught.value), broker)
            await delays.declare(1)

        with_delays(settings_as("other_half", own, f"{own}(?!delayed)", own), use)


class TestSetup:
    def test_it_declares_all_that_a_worker_needs(
        self, settings: Settings, settings_as: Callable[..., Settings], start_worker: Callable[..., Worker]
    ) -> None:
        """After `limetask setup` by its documented user, a worker without the permission to configure works."""
        told = run_setup(settings_as("setup"))
        assert f"{settings.namespace}.delay.23" in told.stdout
        start_worker(settings_as("worker"), "shop", "--processes", "1")
        assert send_task("shop.tasks.add", "acme", 2, 3).wait(20).result == 5

    def test_without_the_permission_it_fails_and_says_so(
        self, settings_as: Callable[..., Settings], names: Names
    ) -> None:
        """As a user who may not declare, it names what is missing; once all exists, it says that it does."""
        worker = settings_as("worker")
        refused = run_setup(worker, succeeds=False)
        assert refused.stdout == ""
        assert refused.stderr.startswith(f"Error: exchange '{names.delay(0)}' is missing")
        assert PASSWORD not in refused.stderr
        run_setup(settings_as("setup"))
        assert "29 queues exist now" in run_setup(worker).stdout


def run_setup(settings: Settings, *, succeeds: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `limetask setup`."""
    command = [str(Path(sys.executable).with_name("limetask")), "setup"]
    ran = subprocess.run(command, env=environment_of(settings), capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode == 0) is succeeds, ran.stderr
    return ran


def run_command_of(message: str, broker: OwnBroker) -> None:
    """Run the rabbitmqctl command that an error message recommends."""
    [command] = re.findall(r"`rabbitmqctl (set_permissions [^`]*)`", message)
    broker.ctl(*shlex.split(command))
