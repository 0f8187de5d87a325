"""A cluster of three nodes with a worker at one of them and another worker at another; one of the nodes is lost.

Each worker knows its own node only. The status store stays in reach of both.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from limetask import Settings, configure
from tests.faults.cluster import Cluster, Member, cluster
from tests.faults.conftest import OpenLedger, StartWorker
from tests.faults.form import in_form
from tests.faults.ledger import Ledger, now
from tests.faults.load import EARLY_KINDS, LATE_KINDS, Load

# In it a node notices that another one does not answer: the time is between three and five quarters of it.
_TICKTIME = 8
_PARTITION_SECONDS = in_form(12.0, 30.0)
_UNNOTICED_SECONDS = 4.0
_DOWN_SECONDS = in_form(8.0, 20.0)
_TOGETHER_SECONDS = 4.0  # after a partition, before somebody restarts the node: both copies of a message are taken
_REST_SECONDS = 200.0  # a message whose task has been started elsewhere is looked at again after 1, 2, 4 ... 64 s
_WORKER_TIMEOUT = 120.0  # on a busy machine a node may take long to come back, and its worker is silent meanwhile
_TASKS = in_form(600, 2500)
_RATE = in_form(50, 60)
_KINDS = (*EARLY_KINDS, LATE_KINDS[0], *EARLY_KINDS, *LATE_KINDS[1:])
_BODY_SECONDS = 0.2


@pytest.fixture(scope="module")
def _breakable_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(3, tmp_path_factory.mktemp("cluster"), _TICKTIME) as started:
        yield started


@pytest.fixture
def own_cluster(_breakable_cluster: Cluster) -> Cluster:
    """A cluster that this test may break."""
    _breakable_cluster.up()  # should another test have left it broken
    return _breakable_cluster


@dataclass(frozen=True)
class Site:
    """The ledger, whose sender is at the node `safe` and so is a worker, and the node `victim` with another worker."""

    ledger: Ledger
    safe: Member
    victim: Member


def open_site(
    own_cluster: Cluster, store_url: str, open_ledger: OpenLedger, employ: StartWorker, *, victim_leads: bool
) -> Site:
    """Start two workers. The recorder at the victim is the one at work, since it comes first.

    With `victim_leads` the victim is the leader of all queues as well.
    """
    safe, _, victim = own_cluster.members
    namespace = f"test-{uuid.uuid4().hex[:12]}"
    settings = Settings(
        broker_url=safe.node.url, namespace=namespace, store_url=store_url, worker_timeout=_WORKER_TIMEOUT
    )
    # Who declares a queue has its leader at his node.
    ledger = open_ledger(replace(settings, broker_url=victim.node.url) if victim_leads else settings)
    ledger.settings = settings
    ledger.events.move_to(settings)
    configure(settings)
    for member in (victim, safe):
        at_member = replace(settings, broker_url=member.node.url)
        employ(ledger, "--processes", "1", "--slots", "8", settings=at_member, inside=member.host.inside)
    return Site(ledger, safe, victim)


def check(ledger: Ledger, fault: str, fault_ended: float) -> None:
    """Nobody was silent for as long as a worker may be: nobody may have heard of a failure."""
    ledger.wait_for_ends(_REST_SECONDS)
    verdict = ledger.check(fault, fault_ended)
    assert not verdict.failures
    assert not [event.fields for event in ledger.events.all() if event.status == "FAILURE"]


@pytest.mark.parametrize("victim_leads", in_form([True], [True, False]))
@pytest.mark.parametrize("handling", in_form(["ignore"], ["ignore", "pause_minority"]))
def test_a_partition_loses_nothing_and_repeats_no_early_task(
    handling: str,
    victim_leads: bool,
    own_cluster: Cluster,
    sqlite_url: str,
    open_ledger: OpenLedger,
    employ: StartWorker,
) -> None:
    """A worker's node is cut off from the others until each side takes the other for dead, and comes back.

    With `ignore`, RabbitMQ's default, somebody must restart the node then, since the two sides know different queues.
    """
    own_cluster.handle_partitions(handling)
    site = open_site(own_cluster, sqlite_url, open_ledger, employ, victim_leads=victim_leads)
    with Load(site.ledger.book, _TASKS, _RATE, _KINDS, _BODY_SECONDS) as load:
        load.wait_for_share(0.2)
        site.victim.host.unplug()
        time.sleep(_PARTITION_SECONDS)
        site.victim.host.plug_in()
        time.sleep(_TOGETHER_SECONDS)
        if handling == "ignore":
            site.victim.restart()
        fault_ended = now()
    fault = f"a node with a worker is cut off for {_PARTITION_SECONDS:g} s ({handling}{', it leads' * victim_leads})"
    check(site.ledger, fault, fault_ended)


@pytest.mark.skipif(in_form(short=True, full=False), reason="takes long: make faults")
@pytest.mark.parametrize("victim_leads", [True, False])
def test_a_partition_that_no_node_notices_is_only_a_pause(
    victim_leads: bool, own_cluster: Cluster, sqlite_url: str, open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """It is over before any node takes another for dead: all connections live on, and what was on its way arrives."""
    own_cluster.handle_partitions("ignore")
    site = open_site(own_cluster, sqlite_url, open_ledger, employ, victim_leads=victim_leads)
    with Load(site.ledger.book, _TASKS, _RATE, _KINDS, _BODY_SECONDS) as load:
        load.wait_for_share(0.2)
        site.victim.host.unplug()
        time.sleep(_UNNOTICED_SECONDS)
        site.victim.host.plug_in()
        fault_ended = now()
    fault = f"a node with a worker is cut off for {_UNNOTICED_SECONDS:g} s, unnoticed{', it leads' * victim_leads}"
    check(site.ledger, fault, fault_ended)


@pytest.mark.parametrize("victim_leads", in_form([True], [True, False]))
def test_the_node_of_the_recorder_at_work_dies(
    victim_leads: bool, own_cluster: Cluster, sqlite_url: str, open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """SIGKILL of the node that it is connected to: the other recorder goes on, and in the end all is recorded."""
    own_cluster.handle_partitions("ignore")
    site = open_site(own_cluster, sqlite_url, open_ledger, employ, victim_leads=victim_leads)
    with Load(site.ledger.book, _TASKS, _RATE, _KINDS, _BODY_SECONDS) as load:
        load.wait_for_share(0.2)
        site.victim.node.kill()
        time.sleep(_DOWN_SECONDS)
        site.victim.node.up()
        fault_ended = now()
    fault = f"SIGKILL of the node of the recorder at work{', which leads' * victim_leads}"
    check(site.ledger, fault, fault_ended)


pytestmark = pytest.mark.timeout(600)
