"""The application factory: from its path to a callable."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from limetask import Application, ConfigurationError
from limetask_worker.applications import load_application_factory
from limetask_worker.loading import LoadingError, load_factory

MakeModule = Callable[[str], str]
_numbers = itertools.count(1)


@pytest.fixture
def make_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeModule]:
    """Make a module of a name of its own with this content."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def make(content: str) -> str:
        name = f"platform{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(content)
        return name

    yield make
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_without_a_path_it_is_limetasks_own() -> None:
    """With nothing set a task gets a `limetask.Application`."""
    assert load_application_factory("") is Application


@pytest.mark.parametrize(
    "content",
    [
        "def make(identifier): return identifier",
        "class make:\n    def __init__(self, identifier): pass",
        "make = str",
        "from contextlib import contextmanager\n@contextmanager\ndef make(identifier): yield identifier",
    ],
    ids=["function", "class", "builtin", "context manager"],
)
def test_a_path_names_a_callable(make_module: MakeModule, content: str) -> None:
    """`module:name` is that module's callable, of whatever kind."""
    module = make_module(content)
    assert load_application_factory(f"{module}:make") is sys.modules[module].make


@pytest.mark.parametrize("path", ["shop", "shop.make", "shop:", ":make", ":", "shop/platform.py"])
def test_a_path_has_two_parts(path: str) -> None:
    """A path without a module or without a name is refused, with the form that it must have."""
    with pytest.raises(ConfigurationError, match=r"'package\.module:callable'") as caught:
        load_application_factory(path)
    assert repr(path) in str(caught.value)


@pytest.mark.parametrize("module", ["no_such_package", "no_such_package.platform", "{module}.platform"])
def test_a_module_that_is_not_there_is_told_as_such(make_module: MakeModule, module: str) -> None:
    """A path into a module that does not exist is refused by the module's name."""
    module = module.format(module=make_module(""))
    with pytest.raises(ConfigurationError, match=f"LIMETASK_APPLICATION_FACTORY: there is no module '{module}'"):
        load_application_factory(f"{module}:make")


@pytest.mark.parametrize("content", ["", "make = 3", "make = None", "Make = str"])
def test_a_name_that_is_no_callable_is_refused(make_module: MakeModule, content: str) -> None:
    """A path to what is missing or cannot be called is refused by both names."""
    module = make_module(content)
    with pytest.raises(ConfigurationError, match=f"{module} has no callable 'make'"):
        load_application_factory(f"{module}:make")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("from limetask import task\n@task\ndef make(app): pass\n", "is a task: name a function that makes"),
        ("def make(identifier): yield identifier", r"yields, .* put @contextlib\.contextmanager above it"),
        ("async def make(identifier): yield identifier", r"yields, .* put @contextlib\.asynccontextmanager above it"),
    ],
    ids=["task", "generator", "asynchronous generator"],
)
def test_what_makes_no_application_is_refused(make_module: MakeModule, content: str, complaint: str) -> None:
    """What can be called, and would return something else each time, is refused before a task is taken."""
    module = make_module(content)
    with pytest.raises(ConfigurationError, match=f"{module}:make {complaint}"):
        load_application_factory(f"{module}:make")


@pytest.mark.parametrize("missing", ["no_such_module", "platf", "{package}.x"], ids=["other", "prefix", "below"])
def test_a_module_that_misses_another_is_not_missing_itself(
    make_module: MakeModule, tmp_path: Path, missing: str
) -> None:
    """If the factory's module imports one that is not there, that one is named, however alike the names are."""
    module = make_module("")
    missing = missing.format(package=module)
    (tmp_path / f"{module}.py").write_text(f"import {missing}")
    with pytest.raises(ModuleNotFoundError, match=missing):
        load_application_factory(f"{module}:make")


@pytest.mark.parametrize(
    "content",
    ["import no_such_module", "1 / 0", "raise SystemExit(3)", "def broken(:"],
    ids=["import", "exception", "exit", "syntax"],
)
def test_a_module_that_fails_keeps_the_worker_from_starting(make_module: MakeModule, content: str) -> None:
    """Whatever the factory's module raises at its import, it is what another start would not mend."""
    module = make_module(content)
    with pytest.raises(LoadingError, match=f"{module}:make"):
        load_factory(f"{module}:make")
