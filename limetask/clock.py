"""The clock for deadlines: it goes on while a test freezes the others."""

from __future__ import annotations

import time

if hasattr(time, "clock_gettime"):

    def now() -> float:
        """Return seconds on a monotonic clock. Tools that freeze `time.monotonic` in tests do not know this one."""
        return time.clock_gettime(time.CLOCK_MONOTONIC)

else:  # Windows

    def now() -> float:
        """Return seconds on a monotonic clock."""
        return time.monotonic()
