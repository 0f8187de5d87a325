"""The example under examples/fastapi_app, under a real uvicorn, with a real worker."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from limetask import Settings
from tests.waiting import eventually
from tests.worker import Worker, environment_of

EXAMPLES = Path(__file__).parents[2] / "examples"
ACME = {"X-Application": "acme"}
OTHER = {"X-Application": "other"}


class Web:
    """A uvicorn that serves the example."""

    def __init__(self, settings: Settings, log: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._log = log
        command = [sys.executable, "-X", "dev", "-m", "uvicorn", "fastapi_app.main:web", "--port", str(port)]
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [*command, "--timeout-graceful-shutdown", "5"],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment_of(settings) | {"PYTHONPATH": os.pathsep.join([str(EXAMPLES), str(EXAMPLES.parent)])},
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def stop(self) -> None:
        """Send SIGTERM; fail unless it ends by that, after its shutdown and without a word of complaint."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == -signal.SIGTERM, "uvicorn ends by the signal, when it has shut down"
        assert "Application shutdown complete" in self.log
        for word in ("Traceback", "Warning", "was destroyed", "never retrieved", "never awaited", "unclosed"):
            assert word not in self.log, self.log


@contextlib.contextmanager
def serving(settings: Settings, log: Path) -> Iterator[Web]:
    web = Web(settings, log)
    try:
        eventually(lambda: "Uvicorn running" in web.log or web.process.poll() is not None, 30, "a running uvicorn")
        assert web.process.poll() is None, web.log
        yield web
    finally:
        if web.process.poll() is None:
            web.process.kill()
            web.process.wait()


@pytest.fixture
def web(settings: Settings, tmp_path: Path) -> Iterator[Web]:
    """The example, served with this test's settings."""
    with serving(settings, tmp_path / "web.log") as web:
        yield web


@pytest.fixture
def http(web: Web) -> Iterator[httpx.Client]:
    """A client of it."""
    with httpx.Client(base_url=web.url, timeout=30) as client:
        yield client


def messages(stream: httpx.Response) -> Iterator[dict[str, Any]]:
    """Yield what a stream of server-sent events has under `data:`."""
    for line in stream.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def test_the_example_works(
    settings: Settings, start_worker: Callable[..., Worker], web: Web, http: httpx.Client
) -> None:
    """Send, hear of the end in the application's own stream, and look the status up, as nobody else can."""
    start_worker(settings, "shop", "--processes", "1")
    with http.stream("GET", "/events", headers=ACME) as stream:
        foreign = http.post("/tasks", headers=OTHER, json={"task": "shop.tasks.add", "args": [40, 2]}).json()
        eventually(
            lambda: http.get(f"/tasks/{foreign['id']}", headers=OTHER).json()["status"] == "SUCCESS", what="an end"
        )
        sent = http.post("/tasks", headers=ACME, json={"task": "shop.tasks.add", "args": [1], "kwargs": {"second": 2}})
        assert sent.status_code == 202
        assert sent.json()["status"] == "PENDING"
        task_id = sent.json()["id"]
        heard = next(messages(stream))
        assert heard == {"id": task_id, "task": "shop.tasks.add", "status": "SUCCESS", "result": 3}
    eventually(
        lambda: http.get(f"/tasks/{task_id}", headers=ACME).json() == {"id": task_id, "status": "SUCCESS", "result": 3},
        what="the recorded end",
    )
    assert http.get(f"/tasks/{task_id}", headers=OTHER).status_code == 404
    web.stop()


def test_it_stops_cleanly_under_open_streams(web: Web, http: httpx.Client) -> None:
    """SIGTERM with readers that go on reading ends the process in time, without a traceback or a warning."""
    with http.stream("GET", "/events", headers=ACME) as stream:
        assert next(stream.iter_lines()) == ": subscribed"
        web.stop()


def test_what_is_wrong_is_told(web: Web, http: httpx.Client) -> None:
    """Each of the caller's mistakes has its status code and says what is wrong."""
    assert http.post("/tasks", json={"task": "shop.tasks.add"}).status_code == 422, "no application"
    wrong = http.post("/tasks", headers=ACME, json={"task": "dotless"})
    assert (wrong.status_code, "words joined by dots" in wrong.text) == (422, True)
    assert http.get("/tasks/nonsense", headers=ACME).status_code == 404


def test_an_absent_broker_is_told_in_time(settings: Settings, tmp_path: Path) -> None:
    """503 with what to do, for a send and for a stream."""
    without_broker = Settings(
        broker_url="amqp://127.0.0.1:1/", send_timeout=1.0, namespace=settings.namespace, store_url=settings.store_url
    )
    with serving(without_broker, tmp_path / "web.log") as web, httpx.Client(base_url=web.url, timeout=10) as http:
        answers = [
            http.post("/tasks", headers=ACME, json={"task": "shop.tasks.add"}),
            http.get("/events", headers=ACME),
        ]
    assert [answer.status_code for answer in answers] == [503, 503]
    assert all("LIMETASK_BROKER_URL" in answer.json()["error"] for answer in answers)
