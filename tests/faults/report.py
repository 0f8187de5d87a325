"""One line of JSON for each fault, and for each process of the soak, for the tables in docs/reliability.md."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

REPORT = "LIMETASK_FAULTS_REPORT"


def report(fault: str, **figures: Any) -> None:
    """Print what a fault did, and append it to the file that LIMETASK_FAULTS_REPORT names."""
    _write({"fault": fault} | figures)


def report_memory(process: str, **figures: float) -> None:
    """Print what a process took at the beginning and at the end of the soak, and append it to the same file."""
    _write({"process": process} | figures)


def _write(fields: dict[str, Any]) -> None:
    line = json.dumps(fields)
    print(line)
    if path := os.environ.get(REPORT):
        with Path(path).open("a") as lines:
            lines.write(f"{line}\n")
