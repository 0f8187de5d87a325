"""Log lines for people (text) and for machines (JSON), each with the task that it is about."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

from limetask.codec import valid_text
from limetask_worker.executor import current_work
from limetask_worker.work import Work

# Fields of a log record that no user's `extra` will have by chance.
WORK_FIELD = "limetask_work"
DURATION_FIELD = "limetask_duration"

LogFormat = Literal["text", "json"]


def configure_logging(log_format: LogFormat, level: str, process: str) -> None:
    """Send every log line of this process to standard error; `process` names it in each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter(process) if log_format == "json" else _TextFormatter(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # At its own INFO it tells what it does not do.
    logging.getLogger("alembic").setLevel(max(root.level, logging.WARNING))


def _task_fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return what is known of the task that a line is about: given with it, or running where it was written."""
    work: Work | None = getattr(record, WORK_FIELD, None) or current_work.get()
    if work is None:
        return {}
    identity = work.message.identity
    fields: dict[str, Any] = {
        "task_id": identity.task_id,
        "task": identity.task_name,
        "app": identity.app,
        "attempt": identity.attempt,
    }
    if hasattr(record, DURATION_FIELD):
        fields["duration"] = round(getattr(record, DURATION_FIELD), 6)
    return fields


class _TextFormatter(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value}" for name, value in _task_fields(record).items())
        moment = datetime.fromtimestamp(record.created).astimezone().isoformat(" ", "milliseconds")
        line = f"{moment} {record.levelname:<7} {self._process}: {record.getMessage()}{fields}"
        return "\n".join([line, *_traces(self, record).values()])


class _JsonFormatter(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname,
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
            **_task_fields(record),
        }
        line |= _traces(self, record)
        return orjson.dumps({name: _valid(value) for name, value in line.items()}).decode()


def _traces(formatter: logging.Formatter, record: logging.LogRecord) -> dict[str, str]:
    traces = {}
    if record.exc_info:
        traces["exception"] = formatter.formatException(record.exc_info)
    if record.stack_info:
        traces["stack"] = formatter.formatStack(record.stack_info)
    return traces


def _valid(value: Any) -> Any:
    return valid_text(value) if isinstance(value, str) else value
