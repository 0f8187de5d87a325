"""Declarations: which functions and options make a task, and how tasks are found by name."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from limetask import Application, ArgumentsError, DeclarationError, DuplicateTaskError, TaskNameError
from limetask.functions import place_of
from limetask.registry import (
    TaskDeclaration,
    check_task_name,
    declared_tasks,
    find_task,
    register,
)

MAX_TASK_NAME_BYTES = 234


def plain(app: Application, number: int = 1) -> int:
    return number


async def coroutine(app: Application) -> None:
    pass


def generator(app: Application) -> Iterator[int]:
    yield 1


async def async_generator(app: Application) -> AsyncIterator[int]:
    yield 1


def without_parameters() -> None:
    pass


def with_named_parameters_only(*, app: Application) -> None:
    pass


def with_any_names(**values: Any) -> None:
    pass


def with_any_arguments(*values: Any) -> None:
    pass


def with_positional_only(app: Application, /) -> None:
    pass


class Callables:
    def method(self, app: Application) -> None:
        pass

    def __call__(self, app: Application) -> None:
        pass


def passed_on(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def declaration(function: Any = plain, **options: Any) -> TaskDeclaration:
    given: dict[str, Any] = {"name": "pkg.tasks.add", "acks_late": False, "qos": "default", "time_limit": None}
    return TaskDeclaration(function, **(given | options))


@pytest.mark.parametrize(
    "name",
    [
        "a.b",
        "pkg.tasks.add",
        "pkg.Größe.größer",
        "pkg.tasks.add-2/x:y_z",
        "a." + "x" * (MAX_TASK_NAME_BYTES - 2),
        "a." + "ä" * (MAX_TASK_NAME_BYTES // 2 - 1),
    ],
)
def test_dotted_words_make_a_name(name: str) -> None:
    """Words joined by dots, of whatever letters, up to 234 bytes, are a task's name."""
    check_task_name(name)


@pytest.mark.parametrize(
    "name",
    ["add", ".add", "pkg.", "pkg..add", ".", "pkg.*", "pkg.#.add", "pkg add.x", "pkg.add\n", "pkg.a\x00", "a.\x7f"],
)
def test_anything_but_dotted_words_is_no_name(name: str) -> None:
    """A name without a dot, with an empty word, a space or what a binding has for a wildcard is refused."""
    with pytest.raises(TaskNameError, match=r"words joined by dots.*my_package\.tasks\.my_task") as caught:
        check_task_name(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("name", ["pkg.\ud800", "\udcff.add"], ids=ascii)
def test_a_name_is_valid_unicode(name: str) -> None:
    """A name that cannot be encoded, so that no message could carry it, is refused."""
    with pytest.raises(TaskNameError):
        check_task_name(name)


@pytest.mark.parametrize("name", ["", None, 3, b"pkg.add", ["pkg.add"]])
def test_what_is_no_text_is_no_name(name: Any) -> None:
    """Nothing, or something else than a text, is refused with an example of a name."""
    with pytest.raises(TaskNameError, match=r"needs a name, such as 'my_package\.tasks\.my_task'"):
        check_task_name(name)


@pytest.mark.parametrize("name", ["a." + "x" * (MAX_TASK_NAME_BYTES - 1), "a." + "ä" * (MAX_TASK_NAME_BYTES // 2)])
def test_a_name_fits_into_a_routing_key(name: str) -> None:
    """A name of more bytes than a routing key has room for is refused with both figures."""
    with pytest.raises(TaskNameError, match=f"has {len(name.encode())} bytes and may have {MAX_TASK_NAME_BYTES}"):
        check_task_name(name)


@pytest.mark.parametrize(
    "function", [plain, coroutine, with_any_arguments, with_positional_only, passed_on(plain), lambda app: None]
)
def test_a_function_that_takes_an_application_makes_a_task(function: Any) -> None:
    """Any function whose first parameter can be the application is accepted."""
    assert declaration(function).function is function


@pytest.mark.parametrize(("function", "is_async"), [(plain, False), (coroutine, True), (passed_on(plain), False)])
def test_a_task_knows_whether_it_is_async(function: Any, is_async: bool) -> None:
    """Only an `async def` is run as a coroutine."""
    assert declaration(function).is_async is is_async


@pytest.mark.parametrize(
    "function",
    [
        print,
        Callables,
        Callables(),
        Callables().method,
        functools.partial(plain, number=2),
        functools.lru_cache(plain),
        staticmethod(plain),
        classmethod(cast(Any, plain)),
        "pkg.tasks.add",
        None,
    ],
    ids=lambda value: type(value).__name__,
)
def test_anything_but_a_function_makes_no_task(function: Any) -> None:
    """Classes, bound methods, partials and the like are refused, and the message shows what was given."""
    with pytest.raises(DeclarationError, match="must decorate a function") as caught:
        declaration(function)
    assert repr(function)[:40] in str(caught.value)


@pytest.mark.parametrize("function", [generator, async_generator])
def test_a_task_does_not_yield(function: Any) -> None:
    """A generator has no result to record, so it is refused."""
    with pytest.raises(DeclarationError, match=r"'pkg\.tasks\.add' yields"):
        declaration(function)


@pytest.mark.parametrize(
    "function", [without_parameters, with_named_parameters_only, with_any_names, passed_on(without_parameters)]
)
def test_a_task_takes_the_application_first(function: Any) -> None:
    """A function without a positional parameter for the application is refused, with how to declare it."""
    with pytest.raises(DeclarationError, match=rf"def {function.__name__}\(app, \.\.\.\)"):
        declaration(function)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"acks_late": 1}, "acks_late is True or False, not 1"),
        ({"acks_late": None}, "acks_late is True or False, not None"),
        ({"acks_late": "yes"}, "acks_late is True or False, not 'yes'"),
        ({"qos": "fast"}, "qos is one of asap, default, background, not 'fast'"),
        ({"qos": None}, "qos is one of asap, default, background, not None"),
        ({"qos": ["asap"]}, "qos is one of asap, default, background, not ['asap']"),
        ({"time_limit": 0}, "time_limit is a number of seconds above 0, not 0"),
        ({"time_limit": -1.5}, "time_limit is a number of seconds above 0, not -1.5"),
        ({"time_limit": float("nan")}, "time_limit is a number of seconds above 0, not nan"),
        ({"time_limit": "5"}, "time_limit is a number of seconds above 0, not '5'"),
        pytest.param(
            {"time_limit": 10**5000},
            "time_limit may be 31,622,400 seconds (a year), not a whole number of thousands of digits; "
            "None is no limit",
            id="huge-1",
        ),
        ({"time_limit": float("inf")}, "time_limit may be 31,622,400 seconds (a year), not inf; None is no limit"),
        pytest.param(
            {"soft_time_limit": 10**9},
            "soft_time_limit may be 31,622,400 seconds (a year), not 1000000000; None is no limit",
            id="huge-2",
        ),
        pytest.param(
            {"time_limit": -(10**5000)},
            "time_limit is a number of seconds above 0, not a whole number of thousands of digits",
            id="huge-3",
        ),
        pytest.param(
            {"acks_late": 10**5000},
            "acks_late is True or False, not a whole number of thousands of digits",
            id="huge-4",
        ),
        ({"time_limit": True}, "time_limit is a number of seconds above 0, not True"),
    ],
    ids=str,
)
def test_a_wrong_option_is_refused(options: dict[str, Any], message: str) -> None:
    """An option with a wrong value is refused; the message names task, option and value."""
    with pytest.raises(DeclarationError) as caught:
        declaration(**options)
    assert str(caught.value) == f"task 'pkg.tasks.add': {message}"


@pytest.mark.parametrize(
    "options",
    [{"acks_late": True}, {"qos": "asap"}, {"qos": "background"}, {"time_limit": 1}, {"time_limit": 0.5}],
    ids=str,
)
def test_a_declaration_keeps_its_options(options: dict[str, Any]) -> None:
    """What an option was declared as can be read from the declaration."""
    made = declaration(**options)
    assert {name: getattr(made, name) for name in options} == options


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1,), {}), ((), {"number": 1}), (([None],), {})], ids=str)
def test_arguments_that_fit_are_accepted(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """A task can be called with the arguments that its function has beside the application."""
    declaration(plain).check_arguments(args, kwargs)
    declaration(passed_on(plain)).check_arguments(args, kwargs)
    declaration(with_any_arguments).check_arguments(args, {})


@pytest.mark.parametrize(
    ("args", "kwargs", "complaint"),
    [
        ((1, 2), {}, "too many positional arguments"),
        ((), {"amount": 1}, "amount"),
        ((1,), {"number": 1}, "number"),
        ((), {"app": "shop"}, "app"),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit_are_refused(args: tuple[Any, ...], kwargs: dict[str, Any], complaint: str) -> None:
    """A call that the function would refuse is refused with the reason and the function's parameters."""
    with pytest.raises(
        ArgumentsError, match=r"'pkg\.tasks\.add'.*\(app: .*Application.*, number: .*int.* = 1\)"
    ) as caught:
        declaration(plain).check_arguments(args, kwargs)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((1, 2), {}), ((), {"amount": 1}), ((1,), {"number": 1}), ((), ["number"]), (None, {})],
    ids=str,
)
def test_a_call_that_fits_does_not_let_another_through(args: Any, kwargs: Any) -> None:
    """After calls that fit, one that does not is refused all the same, and so is what is no arguments at all."""
    made = declaration(plain)
    for _ in range(2):
        made.check_arguments((), {})
        made.check_arguments((1,), {})
        made.check_arguments((), {"number": 1})
        with pytest.raises(ArgumentsError):
            made.check_arguments(args, kwargs)


def test_any_number_of_arguments_is_accepted() -> None:
    """A function that takes whatever comes can be called in more ways than are remembered."""
    made = declaration(with_any_arguments)
    for number in range(300):
        made.check_arguments([0] * number, {})


def test_a_missing_argument_is_refused() -> None:
    """A call without an argument that has no default is refused by the argument's name."""

    def charge(app: Application, amount: int) -> None:
        pass

    with pytest.raises(ArgumentsError, match="amount"):
        declaration(charge).check_arguments((), {})


def test_a_declared_task_is_found_by_its_name() -> None:
    """A task can be found by exactly its name once it is registered."""
    made = declaration()
    assert find_task(made.name) is None
    register(made)
    assert find_task(made.name) is made
    assert find_task("pkg.tasks.Add") is None
    assert declared_tasks() == {made.name: made}


def test_the_declared_tasks_are_a_copy() -> None:
    """Whoever gets all tasks cannot change the registry with them."""
    register(declaration())
    tasks = declared_tasks()
    assert isinstance(tasks, dict)
    tasks.clear()
    assert list(declared_tasks()) == ["pkg.tasks.add"]


def test_two_functions_under_one_name_are_refused() -> None:
    """A second function under a name is refused; the message tells where both stand, and the first one stays."""
    first, second = declaration(), declaration(with_any_arguments)
    register(first)
    with pytest.raises(DuplicateTaskError, match=r"@task\(name=\.\.\.\)") as caught:
        register(second)
    for function in (plain, with_any_arguments):
        assert f"{__name__}.{function.__name__} ({__file__}:{function.__code__.co_firstlineno})" in str(caught.value)
    assert find_task("pkg.tasks.add") is first


def test_the_place_of_a_decorated_function_is_its_own() -> None:
    """Where a function stands is told by the function itself, not by what it is wrapped in."""
    assert place_of(passed_on(plain)) == place_of(plain)


def test_the_same_function_again_replaces_the_declaration() -> None:
    """A function that is declared anew has the newer options."""
    register(declaration())
    register(declaration(acks_late=True))
    found = find_task("pkg.tasks.add")
    assert found is not None
    assert found.acks_late is True


def test_reloading_a_module_replaces_its_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a reload of its module a task is the new function."""
    module = tmp_path / "reloaded_tasks.py"
    module.write_text("from limetask import task\n\n@task\ndef answer(app):\n    return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    imported = importlib.import_module("reloaded_tasks")
    try:
        module.write_text(
            "from limetask import task\n\n# moved\n\n@task(acks_late=True)\ndef answer(app):\n    return 2\n"
        )
        importlib.reload(imported)
    finally:
        del sys.modules["reloaded_tasks"]
    found = find_task("reloaded_tasks.answer")
    assert found is not None
    assert (found.function(None), found.acks_late) == (2, True)
