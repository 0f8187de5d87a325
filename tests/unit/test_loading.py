"""Importing the packages that hold the tasks: wholly, or not at all and with a message for who started the worker."""

from __future__ import annotations

import builtins
import itertools
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from limetask.registry import declared_tasks
from limetask_worker.loading import LoadingError, load

TASK = """
    from limetask import task

    @task
    def run(app):
        pass
"""
MakePackage = Callable[[dict[str, str]], str]
_numbers = itertools.count(1)


@pytest.fixture
def make_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakePackage]:
    """Make a package of a name of its own out of files and their contents; `{package}` in a content is its name."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def make(files: dict[str, str]) -> str:
        package = f"loaded{next(_numbers)}"
        for name, content in files.items():
            path = tmp_path / package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(content).replace("{package}", package))
        return package

    yield make
    for name in set(sys.modules) - before:
        del sys.modules[name]


def loaded(packages: list[str]) -> set[str]:
    """Import packages, and return the names of the tasks that are declared then."""
    load(packages)
    return set(declared_tasks())


def refusal(*packages: str) -> str:
    with pytest.raises(LoadingError) as caught:
        load(packages)
    return str(caught.value)


def test_all_submodules_are_imported(make_package: MakePackage) -> None:
    """The tasks of a package are those of its own module and of all modules and packages below it."""
    package = make_package(
        {
            "__init__.py": TASK,
            "a.py": TASK,
            "_b.py": TASK,
            "c/__init__.py": TASK,
            "c/d/__init__.py": "",
            "c/d/e.py": TASK,
        }
    )
    modules = ["", ".a", "._b", ".c", ".c.d.e"]
    assert loaded([package]) == {f"{package}{module}.run" for module in modules}


def test_a_single_module_is_imported(make_package: MakePackage) -> None:
    """A module that is no package may be named as well, and its neighbours stay alone."""
    package = make_package({"__init__.py": "", "tasks.py": TASK, "broken.py": "1 / 0"})
    assert loaded([f"{package}.tasks"]) == {f"{package}.tasks.run"}


def test_several_packages_are_imported(make_package: MakePackage) -> None:
    """The tasks of all packages that are named are loaded."""
    packages = [make_package({"__init__.py": TASK}) for _ in range(2)]
    assert loaded(packages) == {f"{package}.run" for package in packages}


def test_a_folder_without_init_is_imported(make_package: MakePackage) -> None:
    """A folder with modules and without `__init__.py` is a package too."""
    package = make_package({"tasks.py": TASK})
    assert loaded([package]) == {f"{package}.tasks.run"}


def test_a_program_is_not_started(make_package: MakePackage) -> None:
    """The modules `__main__`, of the package and of those below, are not imported."""
    program = "raise AssertionError('started')"
    package = make_package({"__init__.py": TASK, "__main__.py": program, "a/__init__.py": "", "a/__main__.py": program})
    assert loaded([package]) == {f"{package}.run"}


@pytest.mark.parametrize(
    "name", ["drop-all.py", "0001_first.py", "class.py", "a-b/__init__.py", "a-b/c.py", "for/c.py"]
)
def test_what_is_no_module_name_is_not_executed(make_package: MakePackage, name: str) -> None:
    """Files and folders that no `import` can name are left alone: they are scripts, and may do anything."""
    package = make_package({"__init__.py": TASK, name: "raise AssertionError('executed')"})
    assert loaded([package]) == {f"{package}.run"}


def test_a_module_is_executed_once(make_package: MakePackage) -> None:
    """A package that is named twice, or of which a module is named too, is imported once."""
    package = make_package(
        {"__init__.py": TASK, "a.py": "import builtins\nbuiltins.{package} = builtins.{package} + 1"}
    )
    vars(builtins)[package] = 0
    load([package, f"{package}.a", package])
    assert vars(builtins).pop(package) == 1


def test_a_module_under_two_names_is_refused(
    make_package: MakePackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the code imports a file under another name than the worker, its tasks would be there twice."""
    package = make_package({"__init__.py": "", "inner/tasks.py": TASK, "inner/use.py": "import inner_{package}.tasks"})
    (tmp_path / package / "inner").rename(tmp_path / package / f"inner_{package}")
    monkeypatch.syspath_prepend(tmp_path / package)
    message = refusal(package)
    assert f"was imported as {package}.inner_{package}.tasks and as inner_{package}.tasks" in message


def test_a_module_may_stand_under_two_names(make_package: MakePackage) -> None:
    """A name that a package gives to a module of its own beside the first one is no second module."""
    package = make_package(
        {
            "__init__.py": "",
            "a.py": TASK + "\n    import sys\n    sys.modules[__name__ + '_old'] = sys.modules[__name__]\n",
        }
    )
    assert loaded([package]) == {f"{package}.a.run"}


def test_a_package_without_tasks_is_refused(make_package: MakePackage) -> None:
    """A worker without tasks would do nothing: it is told how to declare one."""
    package = make_package({"__init__.py": "", "a.py": "value = 1"})
    assert refusal(package) == f"neither a task nor an event handler is declared in {package}: declare one with @task"


@pytest.mark.parametrize("module", ["", ".a", ".a.b"])
@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def broken(:", "SyntaxError"),
        ("from limetask import task\n@task\ndef run(): pass", "DeclarationError"),
        ("import sys; sys.exit('missing setting')", "SystemExit: missing setting"),
        ("class Skipped(BaseException): pass\nraise Skipped('no database')", "Skipped: no database"),
        ("from os import no_such_name", "ImportError: cannot import name 'no_such_name'"),
    ],
    ids=["exception", "syntax", "declaration", "exit", "base exception", "import"],
)
def test_a_module_that_fails_is_told_with_its_traceback(
    make_package: MakePackage, module: str, content: str, error: str
) -> None:
    """Whatever a module raises while it is imported, the message names the module, file, line and error."""
    files = {"": "__init__.py", ".a": "a/__init__.py", ".a.b": "a/b.py"}
    contents = dict.fromkeys(files.values(), "") | {files[module]: content}
    package = make_package(contents)
    message = refusal(package)
    assert message.startswith(f"cannot import {package}{module}, so no task was taken:\n\nTraceback")
    assert f"{package}/{files[module]}" in message
    assert error in message


def test_nothing_is_loaded_if_one_module_fails(make_package: MakePackage) -> None:
    """One broken module is enough to refuse all: a worker with half of its tasks would dead-letter the others."""
    good, bad = make_package({"__init__.py": TASK}), make_package({"__init__.py": "1 / 0"})
    assert f"cannot import {bad}" in refusal(good, bad)


@pytest.mark.parametrize("module", ["", ".b", ".b.c", ".a.b"])
def test_a_package_that_is_not_there_is_told_as_such(make_package: MakePackage, module: str) -> None:
    """A name that leads nowhere is told without a traceback, with what to do."""
    package = make_package({"__init__.py": "", "a.py": ""}) if module else "no_such_package"
    message = refusal(f"{package}{module}")
    assert message.startswith(f"there is no module '{package}{module}' here")
    assert "install its package" in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("content", "missing"),
    [
        ("import no_such_module", "no_such_module"),
        ("import {package}.no_such_module", "no_such_module"),
        ("from . import no_such_name", "no_such_name"),
        ("from .no_such_module import name", "no_such_module"),
        ("import load", "No module named 'load'"),
    ],
    ids=["elsewhere", "in the package", "name", "relative", "prefix of the package"],
)
@pytest.mark.parametrize("file", ["__init__.py", "a.py"])
def test_a_module_that_misses_another_is_told_with_its_traceback(
    make_package: MakePackage, file: str, content: str, missing: str
) -> None:
    """A module that is there but imports one that is not is told as broken, and not as missing itself."""
    message = refusal(make_package({"__init__.py": "", file: content}))
    assert message.startswith("cannot import")
    assert missing in message
    assert f"/{file}" in message


@pytest.mark.parametrize(
    "path",
    ["{package}/tasks.py", "./{package}/tasks.py", "../{package}/tasks.py", "{package}/tasks", "./{package}/tasks"],
)
def test_a_path_is_told_to_be_a_path(make_package: MakePackage, path: str) -> None:
    """Whoever gives a file's path, as a shell completes it, is told the module's dotted name."""
    package = make_package({"__init__.py": "", "tasks.py": TASK})
    path = path.format(package=package)
    assert refusal(path) == f"'{path}' is a path: give the module's dotted name, '{package}.tasks'"


@pytest.mark.parametrize("path", ["{package}/", "./{package}", "./{package}/", "{package}.py"])
def test_the_path_of_a_package_is_told_to_be_a_path(make_package: MakePackage, path: str) -> None:
    """The same with the path of a package's folder, or of a single file."""
    package = make_package({"__init__.py": TASK})
    path = path.format(package=package)
    assert refusal(path) == f"'{path}' is a path: give the module's dotted name, '{package}'"


@pytest.mark.parametrize("name", ["", ".", "..", ".tasks"])
def test_what_is_no_name_is_told_as_missing(name: str) -> None:
    """An empty or relative name is refused without a traceback of limetask's own."""
    assert "Traceback" not in refusal(name)


def test_ctrl_c_during_an_import_is_not_held_up(make_package: MakePackage) -> None:
    """Whoever stops a worker that is still importing stops it."""
    package = make_package({"__init__.py": "raise KeyboardInterrupt"})
    with pytest.raises(KeyboardInterrupt):
        load([package])
