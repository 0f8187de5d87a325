"""Log lines for people (text) and for machines (JSON), each with the task that it is about."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import orjson

from limetask.codec import valid_text
from limetask.message import TaskIdentity
from limetask_worker.escaping import escaped, escaped_json, indented
from limetask_worker.executor import current_work
from limetask_worker.log_thread import IDENTITY_FIELD, WORK_FIELD, hand_over_lines
from limetask_worker.work import Work

# Fields of a log record that no user's `extra` will have by chance.
DURATION_FIELD = "limetask_duration"
DETAILS_FIELD = "limetask_details"

LogFormat = Literal["text", "json"]


class _StandardError(logging.StreamHandler[TextIO]):
    """Where log lines go unless a user's configuration sends them elsewhere."""


def configure_logging(log_format: LogFormat, level: str, process: str) -> None:
    """Send every log line of this process to standard error; `process` names it in each.

    Handlers that are there stay there. `level` is also that of limetask's own loggers, so that a user's configuration,
    of the root logger say, decides where their lines go, and this one which there are.
    """
    handler = _StandardError(sys.stderr)
    handler.setFormatter(_JsonFormatter(process) if log_format == "json" else _TextFormatter(process))
    root = logging.getLogger()
    root.handlers[:] = [one for one in root.handlers if not isinstance(one, _StandardError)] + [handler]
    for name in ("", "limetask", "limetask_worker"):
        logging.getLogger(name).setLevel(level.upper())
    # At its own INFO it tells what it does not do.
    logging.getLogger("alembic").setLevel(max(root.level, logging.WARNING))
    hand_over_lines()


def log_start_failure(logger: logging.Logger, reason: str) -> None:
    """Say why nothing could be started, which may be a headline with a traceback below it."""
    headline, _, details = reason.partition("\n")
    logger.critical("%s", headline, extra={DETAILS_FIELD: details.strip("\n")})


def _identity_of(record: logging.LogRecord) -> TaskIdentity | None:
    """Return the task that a line is about: given with it, or running where it was written."""
    identity: TaskIdentity | None = getattr(record, IDENTITY_FIELD, None)
    if identity is not None:
        return identity
    work: Work | None = getattr(record, WORK_FIELD, None) or current_work.get()
    return None if work is None else work.message.identity


def _task_fields(record: logging.LogRecord) -> dict[str, Any]:
    identity = _identity_of(record)
    if identity is None:
        return {}
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
        return "\n".join([escaped(line), *map(indented, _traces(self, record).values())])


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
        return escaped_json(orjson.dumps({name: _valid(value) for name, value in line.items()}).decode())


def _traces(formatter: logging.Formatter, record: logging.LogRecord) -> dict[str, str]:
    traces = {}
    if details := getattr(record, DETAILS_FIELD, None):
        traces["details"] = str(details)
    if record.exc_info:
        traces["exception"] = formatter.formatException(record.exc_info)
    if record.stack_info:
        traces["stack"] = formatter.formatStack(record.stack_info)
    return traces


def _valid(value: Any) -> Any:
    return valid_text(value) if isinstance(value, str) else value
