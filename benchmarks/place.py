"""Where one system works in one run. Small, since every process of a benchmark imports it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass

_VARIABLE = "LIMETASK_BENCHMARK_PLACE"


@dataclass(frozen=True)
class Place:
    """Services, and names and a database in them that nothing else uses."""

    broker_url: str
    postgresql_url: str
    redis_url: str
    namespace: str
    """The first word of the names of all queues and exchanges."""
    folder: str
    results: str
    """Where ends are kept: postgresql, sqlite, redis, drained or none."""
    made_at: float
    """In Unix seconds."""

    @property
    def store_url(self) -> str:
        """Return the URL of limetask's store."""
        return f"sqlite:///{self.folder}/status.db" if self.results == "sqlite" else self.postgresql_url

    def environment(self) -> dict[str, str]:
        """Return what a process needs in its environment to find this place."""
        return {
            _VARIABLE: json.dumps(asdict(self)),
            "LIMETASK_BROKER_URL": self.broker_url,
            "LIMETASK_STORE_URL": self.store_url,
            "LIMETASK_NAMESPACE": self.namespace,
            # Only limetask comes from a checkout: else it alone would be compiled anew by each process.
            "PYTHONDONTWRITEBYTECODE": "",
        }

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Place:
        """Return the place that this process was given."""
        return cls(**json.loads(environment[_VARIABLE]))
