"""docs/benchmarks.md: written by people, apart from what stands between two comments for each kind of measurement."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks import ROOT, BenchmarkError

DOCS = ROOT / "docs"
NAME = "benchmarks.md"


def write_part(folder: Path, part: str, text: str) -> Path:
    """Replace what the page says of one kind of measurement, and return the page.

    In another folder than the documents' the page is a copy of that one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / NAME
    if not page.exists():
        shutil.copy(DOCS / NAME, page)
    page.write_text(_replaced(page.read_text(), part, text))
    return page


def _replaced(content: str, part: str, text: str) -> str:
    begin, end = (f"<!-- written by scripts/bench, {part}: {border} -->" for border in ("begin", "end"))
    if begin not in content or end not in content:
        raise BenchmarkError(f"{NAME} has no place for this: two lines, {begin} and {end}")
    before, rest = content.split(begin, 1)
    return f"{before}{begin}\n{text}\n{end}{rest.split(end, 1)[1]}"
