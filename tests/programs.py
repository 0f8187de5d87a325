"""Small programs that use limetask, each in a Python process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from limetask import Settings
from tests.worker import environment_of


class Program:
    """Runs at once, under these settings; it can be talked to by lines on its standard input and output."""

    def __init__(self, settings: Settings, source: str, folder: Path, *command: str, **environment: str) -> None:
        path = folder / "program.py"
        path.write_text(textwrap.dedent(source))
        self._process = subprocess.Popen(
            [*(command or (sys.executable,)), path],
            env=environment_of(settings) | environment,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def read_until(self, word: str) -> str:
        """Return what it has written, up to a line with this word; pytest's own deadline ends this."""
        assert self._process.stdout is not None
        lines: list[str] = []
        for line in self._process.stdout:
            lines.append(line)
            if word in line:
                return "".join(lines)
        raise AssertionError(f"the program ended without {word!r}:\n{''.join(lines)}")

    def write(self, line: str) -> None:
        """Send it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def output(self, timeout: float = 60.0) -> str:
        """Wait until it ends, with exit code 0, and return what it has written since."""
        try:
            output, _ = self._process.communicate(timeout=timeout)
        finally:
            self._process.kill()
        assert self._process.returncode == 0, output
        return output


def output_of(settings: Settings, source: str, folder: Path, *command: str, **environment: str) -> str:
    """Run a program to its end, and return what it has written."""
    return Program(settings, source, folder, *command, **environment).output()
