"""How long a fault test is: short with the other tests, full with `make faults`."""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")

FULL = os.environ.get("LIMETASK_FAULTS") == "full"


def in_form(short: T, full: T) -> T:
    """Return what applies to the form that is asked for."""
    return full if FULL else short
