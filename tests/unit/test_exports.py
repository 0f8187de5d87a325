"""What can be imported, and what it costs."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import lime_task
import limetask
from limetask import aio

PUBLIC = [
    "Application",
    "ApplicationError",
    "ArgumentsError",
    "BrokerError",
    "BrokerRefusedError",
    "BrokerUnreachableError",
    "BrokerUrlError",
    "ConfigurationError",
    "ConnectionLostError",
    "DeclarationError",
    "DuplicateHandlerError",
    "DuplicateTaskError",
    "ErrorInfo",
    "Event",
    "EventError",
    "EventPattern",
    "EventPatternError",
    "LimetaskError",
    "MessageRefusedError",
    "MessageTooLargeError",
    "NotConfirmedError",
    "NotFoundError",
    "PartlySentError",
    "ResultError",
    "Retry",
    "SendError",
    "SendOutcomeUnknownError",
    "Settings",
    "SoftTimeLimitExceeded",
    "Status",
    "StoreError",
    "StoreTooNewError",
    "StoreUrlError",
    "Task",
    "TaskCall",
    "TaskFailure",
    "TaskNameError",
    "TaskStatus",
    "TooLargeForBrokerError",
    "UnknownApplicationError",
    "UnroutableError",
    "UnusableHereError",
    "UsageError",
    "WaitTimeoutError",
    "configure",
    "event_handler",
    "get_status",
    "on_failure",
    "on_success",
    "publish_event",
    "send_task",
    "send_tasks",
    "task",
    "wait_all",
    "worker_process_started",
    "worker_process_stopping",
]


def modules_after(statement: str) -> set[str]:
    program = f"import sys; {statement}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


def test_the_public_names_are_these() -> None:
    """`limetask.__all__` is exactly the public interface, in order."""
    assert limetask.__all__ == PUBLIC
    assert sorted(limetask.__all__) == limetask.__all__


def test_every_public_name_exists() -> None:
    """Each name in `__all__` can be imported and belongs to limetask."""
    for name in limetask.__all__:
        assert getattr(limetask, name).__module__.startswith("limetask.")


def test_lime_task_is_limetask() -> None:
    """The documented import name has the same names, and they are the same objects."""
    assert lime_task.__all__ == limetask.__all__
    for name in limetask.__all__:
        assert getattr(lime_task, name) is getattr(limetask, name)


def test_importing_limetask_is_light() -> None:
    """A process that only imports limetask has loaded no AMQP, no database, no worker and no command line."""
    loaded = modules_after("import limetask, lime_task")
    assert "limetask.client" in loaded
    assert not loaded & {"pika", "aio_pika", "sqlalchemy", "click", "rich", "alembic", "limetask_worker", "uvloop"}


def test_the_names_of_the_asyncio_client_are_these() -> None:
    """`limetask.aio.__all__` is exactly its public interface, and `limetask` does not import it."""
    names = ["EventsMissed", "Subscription", "TaskCall", "close", "get_status", "publish_event", "send_task"]
    assert aio.__all__ == [*names, "send_tasks", "subscribe", "wait", "wait_all"]
    assert all(hasattr(aio, name) for name in aio.__all__)
    assert "limetask.aio" not in modules_after("import limetask")


def test_importing_limetask_reads_no_settings() -> None:
    """A wrong environment is told at the first use and not at the import."""
    program = "import limetask"
    wrong = {"LIMETASK_HEARTBEAT": "soon", "LIMETASK_NAMESPACE": "#", "LIMETASK_BROKER_URL": "nonsense"}
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=wrong)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_distribution_has_the_command() -> None:
    """The installed distribution has the worker's command."""
    scripts = importlib.metadata.distribution("limetask").entry_points.select(group="console_scripts")
    assert {script.name: script.value for script in scripts}["limetask-worker"] == "limetask_worker.cli:main"
