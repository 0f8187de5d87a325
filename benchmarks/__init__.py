"""limetask beside its peers, and beside the raw limit of the broker: `scripts/bench --help` says how to run it.

- `systems/`: what is compared, one module each, all with the interface of `systems/system.py`
- `apps/`: each system's tasks, as its own documentation would have them: what its worker runs and its client sends
- `measures/`: what is measured, one module each
- `comparison`: who is measured when; `scale` and `soak`: limetask alone, with much and for long
- `services`, `place`: RabbitMQ, PostgreSQL and Redis; what one system has there for one run
- `driver`, `worker`, `processes`, `starts`: the sender's process, the worker's, what they take, when bodies began
- `interruption`: Ctrl-C at any moment, and no process is left behind
- `results`, `statistics`, `figures`, `targets`, `report`, `page`, `plots`: from numbers to docs/benchmarks.md
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class BenchmarkError(Exception):
    """Something is not as it must be for its figures to mean anything."""
