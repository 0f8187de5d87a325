"""A web platform under servers that fork: it sends in the parent, forks, and sends in every child."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from limetask import Settings, get_status
from tests.waiting import eventually
from tests.worker import Worker, environment_of

WEB = """
import json, os
from limetask import send_task

send_task("shop.tasks.add", "acme", 0, 0)  # at import, so before the fork: the parent has a connection

def application(environ, start_response):
    status = send_task("shop.tasks.add", "acme", 1, 2).wait(20)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"process": os.getpid(), **status.to_dict()}).encode()]
"""


GUNICORN = ["gunicorn", "--preload", "-w", "3", "-b", "127.0.0.1:{port}", "web:application"]
UWSGI = ["uwsgi", "--master", "-p", "3", "--http-socket", "127.0.0.1:{port}", "--wsgi", "web:application"]


@pytest.fixture(
    params=[GUNICORN, [*GUNICORN, "-k", "gevent"], [*UWSGI, "--die-on-term", "-H", sys.prefix]],
    ids=["gunicorn", "gevent", "uwsgi"],
)
def web_port(settings: Settings, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of a platform under a server with three forked processes, which gevent patches after the fork."""
    server, *arguments = request.param
    program = Path(sys.executable).with_name(server)
    if not program.exists():
        pytest.skip(f"needs {server}, which is not among the dependencies, since it has to be compiled")
    (tmp_path / "web.py").write_text(WEB)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    with (tmp_path / "server.log").open("w") as log:
        running = subprocess.Popen(
            [program, *(argument.format(port=port) for argument in arguments)],
            cwd=tmp_path,
            env=environment_of(settings) | {"PYTHONPATH": str(tmp_path)},
            stdout=log,
            stderr=log,
        )
    yield port
    running.send_signal(signal.SIGTERM)
    running.wait(20)


def post(port: int) -> dict[str, object]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as response:
        answer: dict[str, object] = json.load(response)
        return answer


def answers(port: int) -> bool:
    try:
        return bool(post(port))
    except OSError:
        return False


def test_every_preloaded_process_sends_and_waits(
    settings: Settings, start_worker: Callable[..., Worker], web_port: int
) -> None:
    """Requests to several forked processes each send a task, wait for it and get its result."""
    start_worker(settings, "shop", "--processes", "1")
    eventually(lambda: answers(web_port), 30, "the web server")
    replies = [post(web_port) for _ in range(30)]
    assert {reply["result"] for reply in replies} == {3}
    assert len({reply["id"] for reply in replies}) == 30
    eventually(lambda: len({reply["process"] for reply in [post(web_port) for _ in range(10)] + replies}) >= 2)
    eventually(lambda: get_status(str(replies[0]["id"]), "acme").is_completed())
