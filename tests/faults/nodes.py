"""A RabbitMQ or PostgreSQL of one test's own, which the test may break."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.services import BROKER_URL, POSTGRES_URL
from tests.waiting import eventually

_CALL_SECONDS = 240.0  # on a busy machine
_SCRIPTS = Path(__file__).parent.parent.parent / "scripts"


class Node:
    """A server that `scripts/rabbitmq` or `scripts/postgresql` starts in a folder of its own."""

    def __init__(
        self, script: str, folder: Path, inside: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        """`inside` are the first words of the command line, which have the script run somewhere else."""
        self._script = script
        self._folder = folder
        self._inside = inside
        self._environment = environment or {}
        self.url = ""

    def up(self) -> None:
        """Start it, unless it runs; again on the same data and port. Return when it answers."""
        url = eventually(self._try_up, 120, f"a start of {self._script}")
        assert self.url in ("", url), f"{self._script} came back at another address: {self.url}, then {url}"
        self.url = url

    def _try_up(self) -> str:
        done = self._call("up")
        if done.returncode != 0:
            print(done.stderr)  # on a busy machine a start may fail, and the next one succeeds
        return done.stdout.strip()

    def down(self) -> None:
        """Stop it and remove its data."""
        self._run("down")

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl and return what it says."""
        return self._run("ctl", *arguments)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send its process a signal that ends it, and return when it has ended."""
        pid = self._pid
        os.kill(pid, number)
        eventually(lambda: not _runs(pid), 20, f"the end of {self._script}")

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop its process, without a word to anybody, and let it go on afterwards."""
        os.kill(self._pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._pid, signal.SIGCONT)

    def log(self) -> str:
        """Return what it has written so far."""
        return (self._folder / self._script / "log").read_text()

    @property
    def _pid(self) -> int:
        return int((self._folder / self._script / "server.pid").read_text())

    def skip_unless_it_can_be_killed(self) -> None:
        """Skip in a container, which comes back on another port."""
        if (self._folder / self._script / "kind").read_text().strip() != "server":
            pytest.skip(f"needs an installed {self._script}, not a container")

    def _run(self, *arguments: str) -> str:
        done = self._call(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        without = {name: value for name, value in os.environ.items() if name not in (BROKER_URL, POSTGRES_URL)}
        return subprocess.run(
            [*self._inside, _SCRIPTS / self._script, *arguments],
            env=without | {"LIMETASK_SERVICES_DIR": str(self._folder)} | dict(self._environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=_CALL_SECONDS,
        )


@contextlib.contextmanager
def node(script: str, folder: Path) -> Iterator[Node]:
    """Start a server, and remove it afterwards."""
    started = Node(script, folder)
    try:
        started.up()
        started.skip_unless_it_can_be_killed()
        yield started
    finally:
        started.down()


def _runs(pid: int) -> bool:
    """Return True unless the process is gone, or waits as a zombie for whoever should collect it."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False
