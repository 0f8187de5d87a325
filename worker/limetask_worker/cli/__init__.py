"""The `limetask-worker` command, or what says which libraries it lacks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

# alembic is the recorder's: it is asked for here, since a worker without it would start and never record anything.
_MISSING = [library for library in ("click", "rich", "alembic") if find_spec(library) is None]

main: Callable[[], Any]
if _MISSING:

    def main() -> None:
        """Say which extra to install."""
        sys.exit(f'Error: limetask-worker needs {", ".join(_MISSING)}: pip install "limetask[worker]"')
else:
    from limetask_worker.cli.command import main as main
