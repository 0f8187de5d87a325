"""The README's tutorial, followed to the letter: its files are written, its programs run, its output compared."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from limetask import Settings
from limetask.settings import settings_table
from tests.worker import Worker, environment_of

ROOT = Path(__file__).parent.parent.parent
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks() -> list[tuple[str, str]]:
    """The README's code blocks: language and text."""
    return [(match[1], match[2]) for match in BLOCK.finditer((ROOT / "README.md").read_text())]


def files() -> dict[str, str]:
    """The files that the tutorial has its reader write."""
    return {text.splitlines()[0].removeprefix("# file: "): text for _, text in blocks() if text.startswith("# file: ")}


def programs() -> list[tuple[str, str]]:
    """The programs that the tutorial runs, each with the output that it shows."""
    found = blocks()
    return [(text, found[position + 1][1]) for position, (_, text) in enumerate(found) if text.startswith("# run: ")]


@pytest.mark.parametrize("factory", ["", "my_package.platform:open_application"])
def test_the_tutorial_works(
    settings: Settings, start_worker: Callable[..., Worker], tmp_path: Path, factory: str
) -> None:
    """Every program of the tutorial prints what the README says it prints."""
    for name, text in files().items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (tmp_path / "my_package" / "__init__.py").touch()
    start_worker(settings, "my_package", "--processes", "1", LIMETASK_APPLICATION_FACTORY=factory)
    assert len(programs()) == 4
    for program, shown in programs():
        source = program.replace("BROKER_URL", repr(settings.broker_url))
        source = source.replace("limetask.events", f"{settings.namespace}.events")
        ran = subprocess.run(
            [sys.executable, "-c", source],
            cwd=tmp_path,
            env=environment_of(replace(settings, application_factory="")) | {"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (ran.stdout, ran.stderr) == (shown, "")


def test_the_settings_page_lists_every_setting() -> None:
    """docs/settings.md has exactly the table that the settings themselves give."""
    assert settings_table() in (ROOT / "docs" / "settings.md").read_text()


def test_every_link_leads_somewhere() -> None:
    """No page of the README and the docs links to a file that is not there."""
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
