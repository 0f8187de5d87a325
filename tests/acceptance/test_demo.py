"""`scripts/demo`: it shows what it says, fails when that is not so, and leaves nothing behind however it ends."""

from __future__ import annotations

import ast
import filecmp
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pika.exceptions
import psutil
import pytest

from limetask.topology import Names, topology
from tests.broker import channel_to, delete_namespace
from tests.proxy import proxy_to
from tests.waiting import eventually

_ROOT = Path(__file__).parent.parent.parent
_DATA = _ROOT / "examples" / "crm" / "data"
_SECONDS = 90

_MAIN_LINES = (
    "status: PENDING",
    "limetask-worker 0.1.0 is at work",
    "status: SUCCESS",
    "result: {'description': 'Tranbärsvagn Kvarn, Göteborg, Sweden'}",
    "event:  core.task.crm.tasks.lime.get_lime_company.success.v1",
    "result: updated the sales representative of 50 deal entities to coworker with id 1234",
    "✓ these 50 rows of nordic-foods have changed, and none of alpine-tools",
    "result: alpine-tools has no coworker 1234",
    "event:  core.task.crm.tasks.lime.update_sales_representative.failure.v1",
    "error:  KeyError: 'fax'",
    "✓ get_status raises NotFoundError for alpine-tools",
    "✓ all 1000 events say success",
    "✓ the worker's exit code is 0",
    "✓ 1107 tasks had one event each",
)

# Notes with which verbs it is called. Never the real script: a mistake in the demo would stop the broker of all tests.
_RABBITMQ_STUB = """#!/bin/sh
echo "$@" >>"$(dirname "$0")/verbs"
[ "$1" = "$STUB_FAILS" ] && exit 1
echo "$STUB_BROKER_URL"
"""


class _Demo:
    """A demo, whose temporary files are in a folder of its own: that is also how its processes are known."""

    def __init__(self, temporary: Path, root: Path, environment: dict[str, str]) -> None:
        self._temporary = temporary
        self._output = temporary.with_suffix(".out")
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, root / "scripts" / "demo"],
                env=os.environ | {"TMPDIR": str(temporary), "PYTHONFAULTHANDLER": "1"} | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._output.read_text()

    @property
    def lines(self) -> list[str]:
        return self.output.splitlines()

    @property
    def namespace(self) -> str:
        shown = re.search(r"the namespace (demo-\w+)", self.output)
        assert shown is not None, self.output
        return shown[1]

    def wait_for_output(self, text: str) -> None:
        """Return when it has printed `text`; fail if it ends before."""
        eventually(lambda: text in self.output or self.process.poll() is not None, _SECONDS, f"{text!r} is printed")
        assert text in self.output

    def exit_code(self) -> int:
        """Return its exit code; fail if it does not end, with what all of it was doing."""
        try:
            return self.process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the demo did not end:\n{self._stacks()}") from None

    def _stacks(self) -> str:
        """End its processes with a word on where they are."""
        processes = _processes_of(self._temporary)
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGABRT)
        psutil.wait_procs(processes, 10)
        return "\n".join(path.read_text() for path in [self._output, *self._temporary.rglob("worker.log")])

    def assert_nothing_left(self, broker_url: str) -> None:
        """Fail if it has left a process, a file, or a queue or exchange of its namespace."""
        eventually(lambda: not _processes_of(self._temporary), 5, "the demo's processes have ended")
        assert list(self._temporary.iterdir()) == []
        assert _left_on_broker(broker_url, self.namespace) == []


@contextmanager
def _running_demo(temporary: Path, root: Path = _ROOT, **environment: str) -> Iterator[_Demo]:
    demo = _Demo(temporary, root, environment)
    try:
        yield demo
    finally:
        for process in _processes_of(temporary):
            process.kill()
        demo.process.wait()


def _processes_of(temporary: Path) -> list[psutil.Process]:
    processes = psutil.process_iter(["environ"])
    return [process for process in processes if (process.info["environ"] or {}).get("TMPDIR") == str(temporary)]


def _left_on_broker(broker_url: str, namespace: str) -> Sequence[str]:
    wanted = topology(Names(namespace))
    queues = [one.name for one in wanted.queues if _exists(broker_url, "queue_declare", one.name)]
    return queues + [one.name for one in wanted.exchanges if _exists(broker_url, "exchange_declare", one.name)]


def _exists(broker_url: str, declare: str, name: str) -> bool:
    with channel_to(broker_url) as channel:
        try:
            getattr(channel, declare)(name, passive=True)
        except pika.exceptions.ChannelClosedByBroker:
            return False
        return True


def _copy_of_project(folder: Path) -> Path:
    """Copy what the demo consists of, with a stub in the place of `scripts/rabbitmq`."""
    shutil.copytree(_ROOT / "examples", folder / "examples")
    (folder / "scripts").mkdir()
    shutil.copy(_ROOT / "scripts" / "demo", folder / "scripts")
    stub = folder / "scripts" / "rabbitmq"
    stub.write_text(_RABBITMQ_STUB)
    stub.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def finished_demo(tmp_path_factory: pytest.TempPathFactory, broker_url: str) -> Iterator[_Demo]:
    """A demo that has run to its end, with nothing left of it."""
    with _running_demo(tmp_path_factory.mktemp("demo")) as demo:
        assert demo.exit_code() == 0, demo.output
        demo.assert_nothing_left(broker_url)
        yield demo


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """The folder for the temporary files of one demo."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


def test_demo_shows_a_tasks_life(finished_demo: _Demo) -> None:
    missing = [line for line in _MAIN_LINES if line not in finished_demo.lines]

    assert missing == [], finished_demo.output
    assert finished_demo.lines[-1].startswith("All of it is true")


def test_demo_reads_well_when_piped(finished_demo: _Demo) -> None:
    documented = "updated the sales representative of 50 deal entities to coworker with id 1234"
    too_long = [line for line in finished_demo.lines if len(line) > 80 and documented not in line]

    assert re.findall(r"[\x00-\x09\x0b-\x1f\x7f]", finished_demo.output) == []
    assert [line for line in too_long if "sqlite:" not in line] == []  # a temporary folder's name may be long


def test_demo_shows_the_code_that_it_runs(finished_demo: _Demo) -> None:
    actions = (_ROOT / "examples" / "crm" / "actions.py").read_text(encoding="utf-8")

    assert "  task_status = send_task(task_name, my_limeapp, 1001)" in finished_demo.lines
    assert "task_status = send_task(task_name, my_limeapp, 1001)" in actions


@pytest.mark.parametrize(
    ("number", "moment", "exit_code"),
    [
        pytest.param(signal.SIGINT, "$ limetask-worker", 130, id="Ctrl-C while the worker starts"),
        pytest.param(signal.SIGINT, "tasks at once", 130, id="Ctrl-C among a thousand tasks"),
        pytest.param(signal.SIGTERM, "A bulk update", 143, id="SIGTERM"),
    ],
)
def test_interrupted_demo_leaves_nothing(
    number: signal.Signals, moment: str, exit_code: int, temporary: Path, broker_url: str
) -> None:
    with _running_demo(temporary) as demo:
        demo.wait_for_output(moment)
        os.killpg(demo.process.pid, number)  # as a terminal does on Ctrl-C

        assert demo.exit_code() == exit_code, demo.output
        assert "All of it is true" not in demo.output
        demo.assert_nothing_left(broker_url)


def test_a_broker_that_does_not_answer_does_not_keep_an_interrupted_demo(
    tmp_path: Path, temporary: Path, broker_url: str
) -> None:
    root = _copy_of_project(tmp_path / "copy")
    main = root / "examples" / "demo" / "__main__.py"
    patience, short_patience = "CLEANUP_STEP_SECONDS = 60", "CLEANUP_STEP_SECONDS = 8"
    assert patience in main.read_text(encoding="utf-8")
    main.write_text(main.read_text(encoding="utf-8").replace(patience, short_patience), encoding="utf-8")

    with (
        proxy_to(broker_url) as (proxy, url),
        _running_demo(temporary, root, LIMETASK_BROKER_URL=url, STUB_BROKER_URL=url) as demo,
    ):
        demo.wait_for_output("$ limetask-worker")
        proxy.stall("client")
        os.killpg(demo.process.pid, signal.SIGINT)

        assert demo.exit_code() == 1, demo.output
        assert "could not be stopped and removed within 8 s" in demo.output
        assert "everything that the demo had started is stopped" not in demo.output
    delete_namespace(broker_url, demo.namespace)


def test_demo_fails_when_a_task_does_not_do_what_it_says(tmp_path: Path, temporary: Path, broker_url: str) -> None:
    root = _copy_of_project(tmp_path / "copy")
    tasks = root / "examples" / "crm" / "tasks" / "lime.py"
    right, wrong = "SET sales_representative = ? WHERE id = ?", "SET sales_representative = ? WHERE id = 1 + ?"
    assert right in tasks.read_text(encoding="utf-8")
    tasks.write_text(tasks.read_text(encoding="utf-8").replace(right, wrong), encoding="utf-8")

    with _running_demo(temporary, root, STUB_BROKER_URL=broker_url) as demo:
        assert demo.exit_code() == 1, demo.output
        assert "FAILED: it is not true that these 50 rows of nordic-foods have changed" in demo.output
        demo.assert_nothing_left(broker_url)


@pytest.mark.parametrize(
    ("given_url", "failing_verb", "verbs"),
    [
        pytest.param("", "url", ["url", "up", "down"], id="started by the demo"),
        pytest.param("", "", ["url", "up"], id="running before"),
        pytest.param("amqp://127.0.0.1:1/", "", ["up"], id="given"),
        pytest.param("amqp://127.0.0.1:1/", "up", ["up"], id="given and unreachable"),
    ],
)
def test_demo_stops_only_a_broker_that_it_has_started(
    given_url: str, failing_verb: str, verbs: Sequence[str], tmp_path: Path, temporary: Path
) -> None:
    root = _copy_of_project(tmp_path / "copy")
    stub = {"STUB_BROKER_URL": "amqp://127.0.0.1:1/", "STUB_FAILS": failing_verb}
    stub["LIMETASK_SERVICES_DIR"] = str(tmp_path / "services")

    with _running_demo(temporary, root, LIMETASK_BROKER_URL=given_url, **stub) as demo:
        assert demo.exit_code() == 1, demo.output
        assert "FAILED: " in demo.output
    assert (root / "scripts" / "verbs").read_text().splitlines() == verbs


def test_what_newcomers_copy_is_documented() -> None:
    sources = [_ROOT / "scripts" / "demo", *(_ROOT / "examples").rglob("*.py")]
    undocumented = [
        f"{source.name}: {getattr(node, 'name', 'module')}"
        for source in sources
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is None
        if not getattr(node, "name", "").startswith("_")
    ]

    assert len(sources) >= 9
    assert undocumented == []


def test_data_files_are_those_of_their_generator(tmp_path: Path) -> None:
    subprocess.run([sys.executable, _DATA / "generate.py", tmp_path], check=True)

    kept = sorted(path.relative_to(_DATA) for path in _DATA.glob("*/*.csv"))
    assert len(kept) == 6
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.glob("*/*.csv")) == kept
    assert [path for path in kept if not filecmp.cmp(_DATA / path, tmp_path / path, shallow=False)] == []
