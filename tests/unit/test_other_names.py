"""What somebody tries who comes from Celery: each error says what to do instead."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from click.testing import CliRunner

from limetask import (
    ApplicationError,
    ArgumentsError,
    NotFoundError,
    Settings,
    Status,
    TaskCall,
    TaskNameError,
    TaskStatus,
    ids,
    task,
)
from limetask.cli.command import limetask
from limetask.reading import StatusLookup
from limetask.sending import Preparer
from limetask_worker.cli.command import main
from limetask_worker.loading import load

pytestmark = pytest.mark.usefixtures("_restored_logging")


@task(name="other_names.add")
def add(app: Any, x: int, y: int) -> int:
    return x + y


STATUS = TaskStatus("01982f60-4bf1-8a0d-9c55-1f0e5cbe8a11", Status.PENDING, app="acme")


@pytest.mark.parametrize(
    ("owner", "name", "advice"),
    [
        (add, "delay", "`task.send(app, ...)`"),
        (add, "apply_async", "`task.send(app, ...)`"),
        (add, "apply", "call it as a function"),
        (add, "s", "`limetask.send_tasks`"),
        (add, "signature", "`limetask.send_tasks`"),
        (add, "retry", "send the task again"),
        (STATUS, "get", "`status.wait(timeout=10).result`"),
        (STATUS, "ready", "`is_completed()`"),
        (STATUS, "successful", "`status.status`"),
        (STATUS, "state", "`status.status`"),
        (STATUS, "task_id", "it is `id`"),
        (STATUS, "revoke", "takes no task back"),
    ],
)
def test_an_attribute_of_celery_is_told_with_what_to_use_instead(owner: Any, name: str, advice: str) -> None:
    """The error is an AttributeError as for any other name."""
    with pytest.raises(AttributeError) as caught:
        getattr(owner, name)
    assert str(caught.value).startswith(f"a {type(owner).__name__} has no attribute {name!r}: ")
    assert advice in str(caught.value)
    assert not hasattr(owner, name)
    assert not hasattr(type(owner), name)
    assert name not in dir(owner)


@pytest.mark.parametrize("owner", [add, STATUS])
def test_any_other_attribute_is_missing_as_ever(owner: Any) -> None:
    """Nothing is made up, and what looks for special attributes finds none."""
    with pytest.raises(AttributeError, match=r"has no attribute 'wiat'$"):
        _ = owner.wiat
    assert "wait" in dir(STATUS)
    for of_other_protocols in ("__array__", "__html__", "_repr_html_", "__await__"):
        assert not hasattr(owner, of_other_protocols)
    assert copy.copy(owner) == owner
    assert pickle.loads(pickle.dumps(owner)) == owner


def preparer() -> Preparer:
    return Preparer(Settings(), "replies", None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "call",
    [
        TaskCall(add, [1, 2]),  # type: ignore[arg-type]
        TaskCall(add, 1, [2]),  # type: ignore[arg-type]
        TaskCall(add, None, [1, 2]),  # type: ignore[arg-type]
    ],
    ids=["list", "number", "none"],
)
def test_a_forgotten_application_is_told_first(call: TaskCall) -> None:
    """Its place is taken by an argument then, and one is missing: the application is what is wrong."""
    with pytest.raises(ApplicationError, match="is neither"):
        preparer().task(call)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {"args": [1, 2]}), ((1, 2), {"queue": "urgent"}), ((1, 2), {"countdown": 5}), ((1,), {})],
    ids=["args", "queue", "countdown", "too few"],
)
def test_arguments_that_do_not_fit_are_told_with_how_to_give_them(args: Any, kwargs: Any) -> None:
    """What Celery takes beside the arguments is one of them here."""
    with pytest.raises(ArgumentsError, match="begins with the application, and its arguments follow as in a call"):
        preparer().task(TaskCall(add, "acme", args, kwargs))


@pytest.mark.parametrize(
    "wrong", [add.function, print, 5, None, b"other_names.add"], ids=["function", "builtin", "number", "none", "bytes"]
)
def test_what_is_neither_a_task_nor_a_name_is_not_sent(wrong: Any) -> None:
    """A function that is not declared cannot be found by any worker."""
    with pytest.raises(TaskNameError, match="a task that @task has declared, or its name") as caught:
        preparer().task(TaskCall(wrong, "acme"))
    assert repr(wrong)[:40] in str(caught.value)


def test_a_lookup_with_its_arguments_the_wrong_way_round_says_so() -> None:
    """The id comes first; a status is not an id."""
    lookup = StatusLookup(Settings(), lambda *_: None, None)  # type: ignore[arg-type]
    task_id = ids.new_task_id("acme")
    with pytest.raises(NotFoundError, match="the task's id comes first, and then the application"):
        lookup.status_of_any("acme", task_id)
    with pytest.raises(NotFoundError, match="an id is text, not TaskStatus, which has it as its `id`"):
        lookup.status_of_any(STATUS, "acme")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["-A", "my_package"], "limetask-worker my_package"),
        (["--app", "my_package", "worker"], "limetask-worker my_package"),
        (["--app=my_package"], "limetask-worker my_package"),
        (["my_package", "-c", "4"], "--processes"),
        (["my_package", "--concurrency=4"], "--slots"),
        (["my_package", "-Q", "celery"], "--queues"),
        (["my_package", "-l", "info"], "--log-level"),
        (["my_package", "--loglevel=info"], "--log-level"),
        (["my_package", "-B"], "no scheduler"),
    ],
    ids=" ".join,
)
def test_an_option_of_celery_is_told_with_what_it_is_called_here(arguments: list[str], advice: str) -> None:
    """The worker does not start, and the exit code is that of any wrong option."""
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "No such option" in result.output
    assert advice in result.output


@pytest.mark.parametrize(
    ("command", "advice"),
    [("worker", "limetask-worker"), ("inspect", "limetask doctor"), ("result", "limetask status")],
)
def test_a_command_of_celery_is_told_with_what_it_is_called_here(command: str, advice: str) -> None:
    """Another unknown command is told as ever."""
    result = CliRunner().invoke(limetask, [command, "my_package"])
    assert result.exit_code == 2
    assert f"No such command '{command}': " in result.output
    assert advice in result.output
    assert "No such command 'wrker'" in CliRunner().invoke(limetask, ["wrker"]).output


def test_a_name_in_a_module_is_not_a_package() -> None:
    """As others have it: module:app."""
    with pytest.raises(
        Exception, match=r"'my_package:app' names something in a module: give the module alone, 'my_pack"
    ):
        load(["my_package:app"])
