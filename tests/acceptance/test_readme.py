"""The README's tutorial, followed to the letter: its files are written, its programs run, its output compared."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import metadata
from pathlib import Path

import pytest

from limetask import Settings
from limetask.settings import settings_table
from tests.waiting import eventually
from tests.worker import Worker, environment_of

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "README.md"
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks(page: Path = README) -> list[tuple[str, str]]:
    """A page's code blocks: language and text."""
    return [(match[1], match[2]) for match in BLOCK.finditer(page.read_text())]


def files(page: Path = README) -> dict[str, str]:
    """The files that a page has its reader write."""
    texts = [text for _, text in blocks(page) if text.startswith("# file: ")]
    return {text.splitlines()[0].removeprefix("# file: "): text for text in texts}


def programs(page: Path = README) -> list[tuple[str, str]]:
    """The programs that a page runs, each with the output that it shows."""
    found = blocks(page)
    return [(text, found[position + 1][1]) for position, (_, text) in enumerate(found) if text.startswith("# run: ")]


def logged(page: Path = README) -> list[str]:
    """The lines that a page says the worker logs."""
    return [line for language, text in blocks(page) if language == "log" for line in text.splitlines()]


def write_files(page: Path, folder: Path) -> None:
    """Write a page's files, as its reader would."""
    for name, text in files(page).items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (folder / "my_package" / "__init__.py").touch()


def run_program(settings: Settings, program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program of a page in the folder of its files."""
    source = program.replace("limetask.events", f"{settings.namespace}.events")
    return subprocess.run(
        [sys.executable, "-c", source],
        cwd=folder,
        env=environment_of(replace(settings, application_factory="")) | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("factory", ["", "my_package.platform:open_application"])
def test_the_tutorial_works(
    settings: Settings, start_worker: Callable[..., Worker], tmp_path: Path, factory: str
) -> None:
    """Every program prints what the README says; after the restart that it asks for, its handler logs what it says."""
    write_files(README, tmp_path)
    handlers = tmp_path / "my_package" / "handlers.py"
    handlers.unlink()
    worker = start_worker(settings, "my_package", "--processes", "1", LIMETASK_APPLICATION_FACTORY=factory)
    assert len(programs()) == 4
    for program, shown in programs():
        ran = run_program(settings, program, tmp_path)
        assert (ran.stdout, ran.stderr) == (shown, "")
    assert worker.stop() == 0
    handlers.write_text(files()["my_package/handlers.py"])
    worker = start_worker(settings, "my_package", "--processes", "1", LIMETASK_APPLICATION_FACTORY=factory)
    run_program(settings, next(text for text, _ in programs() if "by_name.py" in text), tmp_path)
    [line] = logged()
    eventually(lambda: line in worker.log, what=line)


def test_every_extra_that_the_pages_name_exists() -> None:
    """What the pages have their reader install is an extra of limetask."""
    named = {
        extra
        for page in [README, *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*/README.md")]
        for extras in re.findall(r"limetask\[([a-z,]+)\]", page.read_text())
        for extra in extras.split(",")
    }
    assert "worker" in named
    assert named <= set(metadata("limetask").get_all("Provides-Extra") or ())


def test_the_settings_page_lists_every_setting() -> None:
    """docs/settings.md has exactly the table that the settings themselves give."""
    assert settings_table() in (ROOT / "docs" / "settings.md").read_text()


def test_every_link_leads_somewhere() -> None:
    """No page of the README and the docs links to a file that is not there."""
    for page in [README, ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
