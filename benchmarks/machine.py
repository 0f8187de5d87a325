"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from benchmarks.processes import MIB
from benchmarks.systems.system import System


def machine() -> dict[str, str]:
    """Return the machine's processor, memory and system."""
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{psutil.virtual_memory().total / MIB / 1024:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
    }


def described(servers: dict[str, str]) -> str:
    """Return when and on what something is measured, in one line; `servers` are their versions."""
    found = machine()
    shown = ", ".join(f"{name} {version}" for name, version in servers.items())
    return f"{now()}; {found['processor']}, {found['cores']} cores; {shown}."


def versions(systems: list[System]) -> dict[str, str]:
    """Return the versions of Python and of everything that is compared."""
    packages = dict.fromkeys(package for system in systems for package in system.packages)
    return {"Python": platform.python_version()} | {package: version(package) for package in packages}


def now() -> str:
    """Return the time of day, as the page shows it."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()
