"""Hosts on this machine with a network of their own, whose cables can be pulled.

Each host is a network namespace. Its cable leads to a switch, which is a namespace too: so nothing that the machine
itself filters or routes comes in between. The machine has a cable of its own to the switch.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

# Set apart for tests of networks (RFC 2544): no real host has such an address.
_FIRST_BYTES = ("198.18", "198.19")


@dataclass(frozen=True)
class Host:
    """A host, and the port of the switch that its cable is in."""

    name: str
    address: str
    switch: str
    port: str

    @property
    def inside(self) -> Sequence[str]:
        """The first words of a command line that have the rest run on this host."""
        return ("nsenter", f"--net=/run/netns/{self.name}")

    def unplug(self) -> None:
        """Pull its cable: nothing comes, nothing goes, and nobody is told."""
        _ip("-n", self.switch, "link", "set", self.port, "down")

    def plug_in(self) -> None:
        """Put its cable back."""
        _ip("-n", self.switch, "link", "set", self.port, "up")


@contextmanager
def network(hosts: int) -> Iterator[list[Host]]:
    """Give some hosts that reach each other and this machine. Skips the test where there can be none."""
    _skip_unless_there_can_be_one()
    token = f"lt{secrets.token_hex(3)}"
    net = f"{random.choice(_FIRST_BYTES)}.{random.randrange(256)}"
    with ExitStack() as stack:
        switch = _namespace(stack, f"{token}-switch")
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        _ip("link", "add", token, "type", "veth", "peer", "name", "port0", "netns", switch)
        _ip("-n", switch, "link", "set", "port0", "master", "bridge", "up")
        _ip("address", "add", f"{net}.254/24", "dev", token)
        _ip("link", "set", token, "up")
        yield [_host(stack, switch, f"{token}-{number}", f"{net}.{number}") for number in range(1, hosts + 1)]


def _host(stack: ExitStack, switch: str, name: str, address: str) -> Host:
    host = Host(_namespace(stack, name), address, switch, f"port{address.rpartition('.')[2]}")
    _ip("-n", switch, "link", "add", host.port, "type", "veth", "peer", "name", "cable", "netns", name)
    _ip("-n", name, "link", "set", "lo", "up")
    _ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
    _ip("-n", name, "link", "set", "cable", "up")
    _ip("-n", switch, "link", "set", host.port, "master", "bridge", "up")
    return host


def _namespace(stack: ExitStack, name: str) -> str:
    _ip("netns", "add", name)
    stack.callback(_ip, "netns", "delete", name)
    stack.callback(_kill_all_in, name)  # what still runs would keep it
    return name


def _kill_all_in(namespace: str) -> None:
    for process in _ip("netns", "pids", namespace).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(process), signal.SIGKILL)


def _skip_unless_there_can_be_one() -> None:
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("nsenter"):
        pytest.skip("needs root, iproute2 and nsenter, for hosts that are network namespaces")
    probe = f"lt{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"cannot make a network namespace: {made.stderr.strip()}")
    _ip("netns", "delete", probe)


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
    return done.stdout
