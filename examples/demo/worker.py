"""The worker: `limetask-worker crm`, as a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from crm.tasks import lime

from . import ROOT, WAIT_SECONDS

COMMAND = ("limetask-worker", "crm", "--processes", "2", "--log-level", "warning")
STOP_SECONDS = 45


class Worker:
    """Starts at once, in the folder of the examples, where it finds the package `crm`."""

    def __init__(self, log: Path) -> None:
        self._log = log
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [Path(sys.executable).with_name(COMMAND[0]), *COMMAND[1:]],
                cwd=ROOT / "examples",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,  # Ctrl-C is for the demo alone, which then stops the worker in good order
            )

    @property
    def lines(self) -> list[str]:
        """What it has said so far."""
        return self._log.read_text(errors="replace").splitlines()

    def wait_until_started(self) -> None:
        """Return when the worker has said all that it does, or has ended."""
        last = lime.update_sales_representative.name
        deadline = time.monotonic() + WAIT_SECONDS
        while not any(last in line for line in self.lines):
            if self._process.poll() is not None or time.monotonic() > deadline:
                return
            time.sleep(0.05)

    def stop(self) -> int:
        """Ask the worker to stop, as a service manager does, and return its exit code."""
        self._process.terminate()
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
