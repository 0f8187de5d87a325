"""What was measured, as data: into JSON and back."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.statistics import Spread


@dataclass(frozen=True)
class Run:
    """The figures of one system in one run."""

    system: str
    number: int
    figures: dict[str, float]


@dataclass
class Results:
    """Everything that one call of the program has measured."""

    measured_at: str
    machine: dict[str, str]
    versions: dict[str, str]
    size: dict[str, int]
    runs: list[Run] = field(default_factory=list)

    @property
    def systems(self) -> list[str]:
        """The names of the systems, in the order in which they were measured."""
        return list(dict.fromkeys(run.system for run in self.runs))

    def spread(self, system: str, key: str) -> Spread | None:
        """Return the spread of one figure over all runs, None if it was not measured."""
        values = [run.figures[key] for run in self.runs if run.system == system and key in run.figures]
        return Spread.of(values) if values else None

    def median(self, system: str, key: str) -> float | None:
        """Return the median of one figure over all runs, None if it was not measured."""
        spread = self.spread(system, key)
        return None if spread is None else spread.median

    def write(self, path: Path) -> None:
        """Write all of it as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Results:
        """Return what `write` has written."""
        content: dict[str, Any] = json.loads(path.read_text())
        return cls(**content | {"runs": [Run(**run) for run in content["runs"]]})
