"""What processes take: processor time, memory, open files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from urllib.parse import urlsplit

import psutil

MIB = 1024 * 1024

_SERVERS = {"beam.smp": "broker", "postgres": "postgresql", "redis-server": "redis"}


@dataclass(frozen=True)
class Usage:
    """What one process has taken so far, and what it has at this moment."""

    pid: int
    role: str
    cpu_seconds: float
    """With its children that have ended."""
    resident_bytes: int
    descriptors: int


def family(pid: int, role_of: Callable[[Sequence[str]], str]) -> list[Usage]:
    """Return what a process and all its descendants take; `role_of` names each after its command line."""
    try:
        parent = psutil.Process(pid)
        members = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
    usages = (_usage(member, role_of) for member in members)
    return [usage for usage in usages if usage is not None]


def cpu_seconds(usages: Sequence[Usage]) -> float:
    """Return the processor time of several processes."""
    return sum(usage.cpu_seconds for usage in usages)


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    resident: int = psutil.Process(pid).memory_info().rss
    return resident


def proportional_bytes(pid: int) -> int:
    """Return the memory of a process, 0 if it has ended; what it shares with others counts by its share."""
    try:
        proportional: int = psutil.Process(pid).memory_full_info().pss
    except psutil.NoSuchProcess:
        return 0
    return proportional


@cache
def server_pid(url: str) -> int | None:
    """Return the process that listens on a URL's port, None if it is not on this machine or hidden from us."""
    port = urlsplit(url).port
    try:
        listening = [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    except psutil.Error:
        return None
    pids = {one.pid for one in listening if one.laddr.port == port and one.pid is not None}
    return next((pid for pid in pids if _is_server(pid)), None)


def _is_server(pid: int) -> bool:
    # In the place of a container's server one would find the proxy of the container engine.
    try:
        return psutil.Process(pid).name() in _SERVERS
    except psutil.NoSuchProcess:
        return False


def _usage(process: psutil.Process, role_of: Callable[[Sequence[str]], str]) -> Usage | None:
    """None if it has ended meanwhile."""
    try:
        with process.oneshot():
            times = process.cpu_times()
            return Usage(
                pid=process.pid,
                role=role_of(process.cmdline()),
                cpu_seconds=times.user + times.system + times.children_user + times.children_system,
                resident_bytes=process.memory_info().rss,
                descriptors=process.num_fds(),
            )
    except psutil.Error:
        return None
