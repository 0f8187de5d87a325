"""A real `limetask-worker` in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import psutil

from limetask import Settings
from limetask.settings import environment_variable
from tests.waiting import eventually

PACKAGES = Path(__file__).parent / "packages"


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the environment of a process that is to use these settings and to find the tests' packages."""
    own = {environment_variable(field): str(getattr(settings, field.name)) for field in fields(Settings)}
    return os.environ | own | {"PYTHONPATH": str(PACKAGES)}


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write files, by their path in `folder`, as a user's package that a test makes for itself."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


class Worker:
    """Starts at once; `log` is what it has written so far."""

    def __init__(
        self,
        settings: Settings,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        log_path: Path,
        folder: Path | None = None,
        inside: Sequence[str] = (),
    ) -> None:
        """`inside` are the first words of the command line, which have the rest run somewhere else."""
        self._log_path = log_path
        with log_path.open("w") as log:
            self.process = subprocess.Popen(
                [*inside, Path(sys.executable).with_name("limetask-worker"), *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment_of(settings) | dict(environment),
                cwd=folder or log_path.parent,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log_path.read_text()

    def wait_until_ready(self) -> None:
        """Return when it says that it is at work; fail with its log if it ends before."""
        eventually(lambda: "at work" in self.log or self.process.poll() is not None, 30, "the worker's banner")
        assert self.process.poll() is None, f"the worker ended with {self.process.returncode}:\n{self.log}"

    def child_pids(self, module: str = "limetask_worker.child") -> list[int]:
        """The process ids of its children that run `module`."""
        children = psutil.Process(self.process.pid).children()
        return [child.pid for child in children if module in command_line(child)]

    def stop(self, timeout: float = 40.0) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def kill(self) -> None:
        """Kill it, its children and what their tasks have left behind, if they still run."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def command_line(process: psutil.Process) -> list[str]:
    """The arguments of a process, none if it has ended meanwhile."""
    try:
        arguments: list[str] = process.cmdline()
    except psutil.NoSuchProcess:  # a zombie too
        return []
    return arguments
