"""What `limetask doctor` finds for users with few permissions, on a broker of these tests' own."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from urllib.parse import urlsplit

import pytest

from limetask import Settings, send_task
from limetask.doctor import Finding, examine
from limetask.topology import Names
from tests.broker import channel_to, declare_namespace, queue_length
from tests.integration.test_permissions import PASSWORD, OwnBroker, permissions_of
from tests.waiting import eventually
from tests.worker import Worker

Findings = dict[str, Finding]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnBroker]:
    """A broker whose users these tests may change, stopped after the last test here."""
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


@pytest.fixture(scope="module")
def add_user(broker: OwnBroker) -> Callable[[str], None]:
    """Make a user, once: `rabbitmqctl` takes a second each time."""
    return cache(lambda user: broker.ctl("add_user", user, PASSWORD))


@pytest.fixture
def settings_as(broker: OwnBroker, add_user: Callable[[str], None], settings: Settings) -> Callable[..., Settings]:
    """Give a user a documented role's permissions, or others, and return settings with that user."""

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


def findings(settings: Settings) -> Findings:
    return {finding.check: finding for finding in examine(settings)}


@pytest.mark.parametrize(
    ("role", "uses"),
    [
        (
            "setup",
            "send tasks, hear of their ends at once, run tasks, record statuses, handle dead letters and declare "
            "queues",
        ),
        (
            "worker",
            "send tasks, hear of their ends at once, run tasks and record statuses; it may not handle dead letters or "
            "declare queues",
        ),
        (
            "producer",
            "send tasks; it may not hear of their ends at once, run tasks, record statuses, handle dead letters or "
            "declare queues",
        ),
        (
            "waiting",
            "send tasks and hear of their ends at once; it may not run tasks, record statuses, handle dead letters or "
            "declare queues",
        ),
        (
            "operator",
            "send tasks and handle dead letters; it may not hear of their ends at once, run tasks, record statuses or "
            "declare queues",
        ),
    ],
)
def test_every_documented_role_is_well(
    settings_as: Callable[..., Settings], names: Names, role: str, uses: str
) -> None:
    """Each is told what it may be used for, as a fact; nothing else is taken for amiss because of what it lacks."""
    found = findings(settings_as(role))
    assert found["permissions"] == Finding("permissions", f"user '{role}' may {uses}")
    assert found["broker"].is_well
    assert ("bindings are as they should be" in found["broker"].text) == (role == "setup")


class TestNothingIsDone:
    def test_messages_stay_as_they_were(
        self, settings: Settings, settings_as: Callable[..., Settings], names: Names
    ) -> None:
        """Asking delivers no message, not for a moment, and puts none anywhere."""
        send_task("shop.tasks.add", "acme", 2, 3)
        with channel_to(settings.broker_url) as channel:
            for queue in (names.results_queue, names.dead_queue):
                channel.basic_publish("", queue, b"waiting")
            subscribed = channel.queue_declare("", exclusive=True).method.queue
            channel.queue_bind(subscribed, names.events_exchange, "#")
            assert findings(settings_as("setup"))["permissions"].is_well
            assert channel.queue_declare(subscribed, passive=True).method.message_count == 0
            for queue in (names.task_queue("default"), names.results_queue, names.dead_queue):
                assert queue_length(settings.broker_url, queue) == 1
            for queue in (names.task_queue("default"), names.dead_queue):
                method, properties, _ = channel.basic_get(queue)
                assert not method.redelivered
                assert not properties.headers.get("x-delivery-count")

    def test_queues_stay_as_they_were(
        self, broker: OwnBroker, settings: Settings, settings_as: Callable[..., Settings], names: Names
    ) -> None:
        """No queue is left over, and each still has the arguments that everybody declares."""
        assert findings(settings_as("setup"))["permissions"].is_well
        declare_namespace(settings.broker_url, settings.namespace)
        with channel_to(settings.broker_url) as channel:
            for queue in (names.task_queue("default"), names.results_queue, names.dead_queue):
                assert channel.queue_declare(queue, passive=True).method.consumer_count == 0


def test_who_may_do_nothing_is_told_where_permissions_are(settings_as: Callable[..., Settings], names: Names) -> None:
    """A user who can be used for nothing is amiss, and nothing is claimed that it cannot see."""
    found = findings(settings_as("nobody", "^$", "^$", "^$"))
    assert found["permissions"].text == "user 'nobody' may do nothing of what limetask needs"
    assert not found["permissions"].is_well
    assert "docs/security.md" in found["permissions"].remedy
    assert "only a user who may declare them can check how they are bound" in found["broker"].text


def test_a_worker_that_lacks_something_is_told_what(
    settings: Settings, settings_as: Callable[..., Settings], names: Names
) -> None:
    """Who may take tasks and not publish their ends is told what is missing, as the patterns are written."""
    configure, write, read = permissions_of("worker", settings.namespace)
    found = findings(settings_as("worker", configure, write.replace("|events", "").replace("|default$", ""), read))
    permissions = found["permissions"]
    assert not permissions.is_well
    assert f"it must also write to amq.default and write to {names.events_exchange}: docs/" in permissions.remedy


def test_a_worker_of_one_queue_lacks_nothing(
    settings: Settings, settings_as: Callable[..., Settings], names: Names
) -> None:
    """With `--queues` a worker needs no other queues."""
    configure, write, _ = permissions_of("worker", settings.namespace)
    own = settings.namespace
    found = findings(settings_as("worker", configure, write, rf"^({own}\.tasks\.asap|{own}\.events|amq\.gen.*)$"))
    assert found["permissions"].is_well
    assert "run tasks" in found["permissions"].text.partition("may not")[0]


@pytest.mark.parametrize("role", ["producer", "worker"])
def test_all_is_well_beside_a_worker(
    settings: Settings,
    settings_as: Callable[..., Settings],
    names: Names,
    start_worker: Callable[..., Worker],
    role: str,
) -> None:
    """A producer is not told that the recorder is amiss only because it may not try it; a worker tries it."""
    start_worker(settings, "shop", "--processes", "1")
    limited = settings_as(role)
    # The broker counts consumers now and then.
    found = eventually(lambda: (now := findings(limited))["recorder"].is_well and now, 30)
    assert [finding for finding in found.values() if not finding.is_well] == []
    recorder = found["recorder"]
    if role == "worker":
        assert "it records within" in recorder.text
    else:
        assert not recorder.is_checked
        assert "this user may not write to amq.default" in recorder.text
        assert "limetask doctor" in recorder.remedy


def test_what_is_missing_for_a_producer_is_told(settings_as: Callable[..., Settings], settings: Settings) -> None:
    """Without queues, and without the permission to declare them, the broker is amiss and the reason has the remedy."""
    broker = findings(settings_as("producer"))["broker"]
    assert f"exchange '{settings.namespace}.tasks' is missing" in broker.text
    assert shlex.quote("producer") in broker.text
    assert broker.remedy == "mend what it says"
    assert PASSWORD not in broker.text
