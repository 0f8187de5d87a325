"""RabbitMQ and PostgreSQL for the tests: given by the environment, in containers, or started by the scripts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent

BROKER_URL = "LIMETASK_BROKER_URL"
POSTGRES_URL = "LIMETASK_TEST_POSTGRES_URL"


def start_services() -> ExitStack:
    """Put the URLs of a running RabbitMQ and PostgreSQL into the environment; closing stops what this started."""
    stack = ExitStack()
    try:
        _provide(stack, BROKER_URL, _start_rabbitmq_container, "rabbitmq")
        _provide(stack, POSTGRES_URL, _start_postgresql_container, "postgresql")
    except BaseException:
        stack.close()
        raise
    return stack


def _provide(stack: ExitStack, variable: str, start_container: Callable[[ExitStack], str], script: str) -> None:
    if os.environ.get(variable):
        return
    os.environ[variable] = start_container(stack) if _docker_runs() else _start_by_script(stack, script)
    stack.callback(os.environ.pop, variable, None)


def _docker_runs() -> bool:
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=5, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _start_by_script(stack: ExitStack, script: str) -> str:
    path = _ROOT / "scripts" / script
    was_up = subprocess.run([path, "url"], capture_output=True, check=False).returncode == 0
    started = subprocess.run([path, "up"], capture_output=True, text=True, check=False)
    if started.returncode != 0:
        pytest.exit(f"the tests need {script}, and it cannot be started here:\n{started.stderr}", returncode=1)
    if not was_up:
        stack.callback(_stop_by_script, path)
    return started.stdout.strip()


def _stop_by_script(path: Path) -> None:
    subprocess.run([path, "down"], capture_output=True, check=False)


def _start_rabbitmq_container(stack: ExitStack) -> str:
    from testcontainers.rabbitmq import RabbitMqContainer

    container = stack.enter_context(RabbitMqContainer("rabbitmq:4"))
    host, port = container.get_container_host_ip(), container.get_exposed_port(container.port)
    return f"amqp://{container.username}:{container.password}@{host}:{port}/"


def _start_postgresql_container(stack: ExitStack) -> str:
    from testcontainers.postgres import PostgresContainer

    url: str = stack.enter_context(PostgresContainer("postgres:17", driver="psycopg")).get_connection_url()
    return url
