"""A cluster of RabbitMQ nodes, each on a host of its own whose cable can be pulled."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.faults.network import Host, network
from tests.faults.nodes import Node

_PORT = 5672


@dataclass(frozen=True)
class Member:
    """A node of the cluster and the host that it runs on."""

    host: Host
    node: Node

    @property
    def name(self) -> str:
        return _name_on(self.host)

    def restart(self) -> None:
        """Restart RabbitMQ on it, as its manual asks for after a partition. The process stays."""
        self.node.ctl("stop_app")
        self.node.ctl("start_app")

    def handle_partitions(self, handling: str) -> None:
        self.node.ctl("eval", f"application:set_env(rabbit, cluster_partition_handling, {handling}).")


@dataclass(frozen=True)
class Cluster:
    """All of them."""

    members: Sequence[Member]

    def up(self) -> None:
        """Start what does not run. Return when all nodes are together."""
        for member in self.members:
            member.host.plug_in()
        _all_at_once([member.node.up for member in self.members])
        self.members[0].node.ctl("await_online_nodes", str(len(self.members)))

    def handle_partitions(self, handling: str) -> None:
        """Set what nodes do when they notice a partition: `ignore`, `pause_minority`, or another of RabbitMQ's ways."""
        _all_at_once([partial(member.handle_partitions, handling) for member in self.members])


@contextmanager
def cluster(size: int, folder: Path, net_ticktime: int) -> Iterator[Cluster]:
    """Start a cluster, and remove it afterwards.

    A node that has not been heard of for `net_ticktime` seconds, a quarter more or less, counts as down.
    """
    with ExitStack() as stack:
        members = [Member(host, _node_on(host, folder / host.name)) for host in stack.enter_context(network(size))]
        cookie = secrets.token_hex(10)
        for member in members:
            _prepare(folder / member.host.name / "rabbitmq", {members[0].name, member.name}, cookie, net_ticktime)
        stack.callback(_all_at_once, [member.node.down for member in members])
        members[0].node.up()  # the others join it
        started = Cluster(members)
        started.up()
        yield started


def _node_on(host: Host, folder: Path) -> Node:
    return Node("rabbitmq", folder, host.inside, {"LIMETASK_RABBITMQ_NODE": _name_on(host)})


def _name_on(host: Host) -> str:
    return f"rabbit@{host.address}"


def _prepare(state: Path, known: Iterable[str], cookie: str, net_ticktime: int) -> None:
    """Leave for the start script what it would choose by itself for a node that is alone."""
    (state / "conf.d").mkdir(parents=True)
    (state / "kind").write_text("server\n")
    (state / "port").write_text(f"{_PORT}\n")
    (state / ".erlang.cookie").write_text(cookie)
    lines = [
        "cluster_formation.peer_discovery_backend = classic_config",
        *(f"cluster_formation.classic_config.nodes.{n} = {name}" for n, name in enumerate(sorted(known), start=1)),
        f"net_ticktime = {net_ticktime}",
    ]
    (state / "conf.d" / "cluster.conf").write_text("\n".join([*lines, ""]))


def _all_at_once(calls: Sequence[Callable[[], object]]) -> None:
    with ThreadPoolExecutor(len(calls)) as pool:
        for done in [pool.submit(call) for call in calls]:
            done.result()
