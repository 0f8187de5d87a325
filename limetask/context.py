"""What runs here and now: known to whatever it calls."""

from __future__ import annotations

from contextvars import ContextVar

current_task_id: ContextVar[str | None] = ContextVar("limetask_current_task_id", default=None)
"""The id of the task whose body runs in this thread or coroutine; None outside of tasks."""
