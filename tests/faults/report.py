"""One line of JSON for each fault, for the table in docs/reliability.md."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

REPORT = "LIMETASK_FAULTS_REPORT"


def report(fault: str, **figures: Any) -> None:
    """Print what a fault did, and append it to the file that LIMETASK_FAULTS_REPORT names."""
    line = json.dumps({"fault": fault} | figures)
    print(line)
    if path := os.environ.get(REPORT):
        with Path(path).open("a") as lines:
            lines.write(f"{line}\n")
