"""The supervisor's decisions that need no process: which children, with what, and how a death is told."""

from __future__ import annotations

import os
import signal

import pytest

from limetask_worker.child_process import _child_environment, reason_of_death
from limetask_worker.control import ChildOptions
from limetask_worker.failed_starts import PATIENCE_SECONDS, FailedStarts
from limetask_worker.plan import Plan
from limetask_worker.process import CUT_OFF
from limetask_worker.supervised import Role


@pytest.mark.parametrize(
    ("task_processes", "recorder", "roles"),
    [
        (2, True, [Role.RECORDER, Role.TASKS, Role.TASKS]),
        (1, False, [Role.TASKS]),
        (0, True, [Role.RECORDER]),
        (0, False, []),
    ],
)
def test_a_plan_lists_its_children(task_processes: int, recorder: bool, roles: list[Role]) -> None:
    """A plan has one recorder at most, which comes first, and as many task processes as were asked for."""
    assert Plan(task_processes, recorder, ChildOptions("")).roles == roles


@pytest.mark.parametrize(
    ("exit_code", "reason"),
    [
        (-signal.SIGKILL, "killed by SIGKILL (signal 9)"),
        (-signal.SIGSEGV, "killed by SIGSEGV (signal 11)"),
        (1, "exit code 1"),
        (0, "exit code 0"),
        (CUT_OFF, "stopped before the task had ended"),
    ],
)
def test_the_reason_of_a_death_is_told(exit_code: int, reason: str) -> None:
    """Whoever reads a lost task's error learns the signal or the exit code."""
    assert reason in reason_of_death(exit_code)


def test_memory_is_blamed_on_evidence_only() -> None:
    """SIGKILL is put down to a lack of memory if the kernel has just killed for that, and no other end is."""
    assert "memory" not in reason_of_death(-signal.SIGKILL)
    assert "probably out of memory" in reason_of_death(-signal.SIGKILL, memory_was_short=True)
    assert "memory" not in reason_of_death(-signal.SIGTERM, memory_was_short=True)
    assert "memory" not in reason_of_death(1, memory_was_short=True)


def test_every_signal_can_be_told() -> None:
    """Each signal that can kill a process has a reason, those without a name of their own too."""
    for number in map(int, signal.valid_signals()):
        assert f"signal {number}" in reason_of_death(-number)


def test_a_child_finds_the_packages_of_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child imports from the folder in which the worker was started, before what PYTHONPATH names."""
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    assert _child_environment("/srv/release")["PYTHONPATH"].split(os.pathsep) == ["/srv/release", "elsewhere"]
    assert _child_environment(None)["PYTHONPATH"] == "elsewhere"
    monkeypatch.delenv("PYTHONPATH")
    assert _child_environment("/srv/release")["PYTHONPATH"] == "/srv/release"


def test_a_child_has_the_environment_of_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings in the worker's environment are the child's as well."""
    monkeypatch.setenv("LIMETASK_NAMESPACE", "shop")
    assert _child_environment(None)["LIMETASK_NAMESPACE"] == "shop"


def test_failed_starts_are_tried_again_until_none_has_succeeded_for_a_while() -> None:
    """Each role has its own patience, and the whole of it again after a start that succeeded."""
    now = [100.0]
    failed = FailedStarts(clock=lambda: now[0])
    assert failed.may_pass(Role.TASKS)
    now[0] += PATIENCE_SECONDS - 1
    assert failed.may_pass(Role.TASKS)
    assert failed.may_pass(Role.EVENTS)
    now[0] += 1
    assert not failed.may_pass(Role.TASKS)
    assert failed.may_pass(Role.EVENTS)
    failed.note_success(Role.TASKS)
    assert failed.may_pass(Role.TASKS)
