"""What becomes of a worker whose child cannot start: users' code fails at import or in a hook, or a setting is wrong.

What could start before may start again, as when a hook needs a database that is being restarted, or half of a deploy is
there. So a worker that was at work tries again for a while, with its other processes going on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from limetask_worker.child_process import STARTED_IN
from limetask_worker.supervised import Role

PATIENCE_SECONDS = 60.0
"""For so long children of one role are started again while none of them succeeds."""


class FailedStarts:
    """Remembers since when the starts of each role fail."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` returns seconds, and is one that nobody sets."""
        self._clock = clock
        self._failing_since: dict[Role, float] = {}

    def may_pass(self, role: Role) -> bool:
        """Note that a child could not start; return whether another may be tried, in a worker that was at work."""
        since = self._failing_since.setdefault(role, self._clock())
        return self._clock() - since < PATIENCE_SECONDS and not hint_if_folder_is_gone()

    def note_success(self, role: Role) -> None:
        """Note that a child is at work: its role has the whole patience again."""
        self._failing_since.pop(role, None)


def hint_if_folder_is_gone() -> str:
    """Return what to add to the reason of a failed start: nothing comes back into a folder that is gone."""
    if STARTED_IN is None or not os.path.isdir(STARTED_IN):  # noqa: PTH112
        return f"\n(the folder in which this worker was started has been removed: {STARTED_IN or 'before it began'})"
    return ""
