"""An application factory, as a platform has one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from limetask import UnknownApplicationError

TRACES = Path("applications.log")


@dataclass
class PlatformApplication:
    """What tasks get here."""

    identifier: str


@contextmanager
def open_application(identifier: str) -> Iterator[PlatformApplication]:
    """Know two applications, and leave a trace when one is opened or closed."""
    if identifier not in ("acme", "umbrella"):
        raise UnknownApplicationError(f"this platform has no application {identifier!r}")
    _trace(f"open {identifier}")
    try:
        yield PlatformApplication(identifier)
    finally:
        _trace(f"close {identifier}")


def _trace(line: str) -> None:
    with TRACES.open("a") as traces:
        traces.write(f"{line}\n")
