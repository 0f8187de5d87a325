"""docs/messages.md, followed to the letter: its program sends a task without limetask, and the task runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from limetask import Settings
from tests.acceptance.test_readme import ROOT, files, programs, run_program, write_files
from tests.worker import Worker

PAGE = ROOT / "docs" / "messages.md"


def test_the_program_works(settings: Settings, start_worker: Callable[..., Worker], tmp_path: Path) -> None:
    """It prints what the page says it prints."""
    write_files(PAGE, tmp_path)
    start_worker(settings, "my_package", "--processes", "1", PYTHONPATH=str(tmp_path))
    assert (len(files(PAGE)), len(programs(PAGE))) == (1, 1)
    [(program, shown)] = programs(PAGE)
    ran = run_program(settings, program.replace('"limetask.tasks', f'"{settings.namespace}.tasks'), tmp_path)
    assert (ran.stdout, ran.stderr) == (shown, "")
