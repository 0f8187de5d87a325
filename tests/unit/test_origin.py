"""Two declarations under one name: a reload of a module replaces its tasks, and anything else is a mistake."""

from __future__ import annotations

import code
import functools
import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from limetask import DeclarationError, DuplicateHandlerError, DuplicateTaskError, event_handler, task
from limetask.handlers import declared_handlers
from limetask.registry import declared_tasks, find_task

# A decorator as many are written: without functools.wraps, so that all that it decorates has one name.
AUDITED = """
def audited(function):
    def wrapper(app, *args, **kwargs):
        return function(app, *args, **kwargs)
    return wrapper
"""
WRAPPED = """
import functools
def audited(function):
    @functools.wraps(function)
    def wrapper(app, *args, **kwargs):
        return function(app, *args, **kwargs)
    return wrapper
"""
DECORATORS = {
    "plain": AUDITED,
    "with options": AUDITED.replace("def audited(function):", "def made(function, level=1):")
    + "\ndef audited(function):\n    return made(function, level=2)\n",
    "of a coroutine": AUDITED.replace("    def wrapper", "    async def wrapper").replace(
        "return function", "return await function"
    ),
    "of a wrapper": AUDITED
    + AUDITED.replace("audited", "outer").replace("wrapper", "second")
    + "\nonce = audited\naudited = lambda function: outer(once(function))\n",
}
IMPORTS = "from limetask import event_handler, task\n"


class Modules:
    """A folder of modules that can be imported, changed and reloaded."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.names: set[str] = set()

    def write(self, name: str, body: str) -> None:
        (self._folder / f"{name}.py").write_text(IMPORTS + body)
        self.names.add(name)

    def load(self, name: str, body: str) -> ModuleType:
        self.write(name, body)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    def reload(self, module: ModuleType, body: str) -> None:
        self.write(module.__name__, body)
        importlib.reload(module)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Modules]:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    made = Modules(tmp_path)
    yield made
    for name in made.names:
        sys.modules.pop(name, None)


def run(name: str) -> Any:
    """What the task of that name returns."""
    found = find_task(name)
    assert found is not None
    return found.function(None)


@pytest.mark.parametrize(
    ("decorator", "option"),
    [(AUDITED, ""), (AUDITED, "(name='shop.order')"), ("from origin_audit import audited\n", "(name='shop.order')")],
    ids=["here", "here, named", "elsewhere, named"],
)
def test_two_functions_under_one_decorator_are_two(modules: Modules, decorator: str, option: str) -> None:
    """Under a decorator without functools.wraps the second function does not take the first one's place in silence."""
    modules.write("origin_audit", AUDITED)
    with pytest.raises(DuplicateTaskError, match=r"functools\.wraps") as caught:
        modules.load(
            "origin_shop",
            f"{decorator}\n@task{option}\n@audited\ndef refund(app):\n    return 'refunded'\n\n"
            f"@task{option}\n@audited\ndef delete_order(app):\n    return 'deleted'\n",
        )
    assert str(caught.value).count("origin_shop.py:") >= 2
    [only] = declared_tasks()
    assert run(only) == "refunded"


def test_two_handlers_under_one_decorator_are_two(modules: Modules) -> None:
    """The same holds for event handlers."""
    with pytest.raises(DuplicateHandlerError, match=r"functools\.wraps"):
        modules.load(
            "origin_handlers",
            f"{AUDITED}\n@event_handler('a.b')\n@audited\ndef notify(app, event):\n    pass\n\n"
            "@event_handler('c.d')\n@audited\ndef delete(app, event):\n    pass\n",
        )
    assert declared_handlers()["origin_handlers.wrapper"].bindings == {"a.b"}


@pytest.mark.parametrize("declare", ["task", "event_handler('a.b')"])
@pytest.mark.parametrize("decorator", DECORATORS.values(), ids=DECORATORS.keys())
def test_what_a_decorator_of_another_module_makes_needs_a_name(modules: Modules, declare: str, decorator: str) -> None:
    """Its default name would be that of all that it makes: a sender's and a worker's could be two functions."""
    modules.write("origin_audit", decorator)
    body = "from origin_audit import audited\n\n@{0}\n@audited\ndef refund(app, event=None):\n    return 'refunded'\n"
    with pytest.raises(DeclarationError, match=r"functools\.wraps.*name='origin_shop\.refund'\)"):
        modules.load("origin_shop", body.format(declare))
    name = "task(name='shop.refund')" if declare == "task" else "event_handler('a.b', name='shop.refund')"
    modules.load("origin_second", body.format(name))
    assert [*declared_tasks(), *declared_handlers()] == ["shop.refund"]


def test_a_helper_that_declares_what_it_makes_needs_a_name_too(modules: Modules) -> None:
    """The same for a decorator of one's own around `@task`, and not for a function that holds something else."""
    modules.write(
        "origin_helper",
        "def audited(function):\n    @task\n    def wrapper(app):\n        return function(app)\n    return wrapper\n\n"
        "def declare(word):\n    from os.path import join\n    @task\n    def tell(app):\n"
        "        return join(word, word)\n    return tell\n",
    )
    with pytest.raises(DeclarationError, match=r"name='origin_shop\.refund'"):
        modules.load("origin_shop", "import origin_helper\n\n@origin_helper.audited\ndef refund(app):\n    pass\n")
    modules.load("origin_words", "import origin_helper\n\norigin_helper.declare('a')\n")
    assert run("origin_helper.tell") == "a/a"


def test_functions_of_a_loop_are_several(modules: Modules) -> None:
    """A function that a loop defines twice, each time over another value, is not one task."""
    with pytest.raises(DuplicateTaskError):
        modules.load(
            "origin_loop",
            "def made(word):\n    @task\n    def tell(app):\n        return word\n    return tell\n\n"
            "for word in ('refund', 'delete'):\n    made(word)\n",
        )
    assert run("origin_loop.tell") == "refund"


def test_functions_with_other_defaults_are_several() -> None:
    """What differs in its defaults only does something else."""

    def declare(word: str) -> None:
        @task(name="shop.tell")
        def tell(app: Any, said: str = word) -> str:
            return said

    declare("refund")
    declare("refund")
    with pytest.raises(DuplicateTaskError):
        declare("delete")


def test_closures_that_are_declared_later_are_several() -> None:
    """After all imports, in a function that is called twice, it is the same as in a module; in a thread as well."""

    def declare(word: str) -> None:
        @task(name="shop.tell")
        def tell(app: Any) -> str:
            return word

    declare("refund")
    with pytest.raises(DuplicateTaskError):
        declare("delete")
    refused = []

    def declare_twice() -> None:
        for word in ("later", "latest"):
            try:
                task(name="shop.in_a_thread")(closure_over(word))
            except DuplicateTaskError as exc:
                refused.append(exc)

    thread = threading.Thread(target=declare_twice)
    thread.start()
    thread.join()
    assert len(refused) == 1
    assert (run("shop.tell"), run("shop.in_a_thread")) == ("refund", "later")


def closure_over(word: str) -> Callable[[Any], str]:
    def tell(app: Any) -> str:
        return word

    return tell


def test_a_function_that_holds_nothing_may_be_declared_again() -> None:
    """A test that defines a task and runs twice, say with other parameters, declares the same thing twice."""

    def declare(acks_late: bool) -> None:
        @task(name="shop.tell", acks_late=acks_late)
        def tell(app: Any) -> str:
            return "told"

        @event_handler("shop.#", name="shop.notify")
        def notify(app: Any, event: Any) -> None:
            pass

    declare(False)
    declare(True)
    found = find_task("shop.tell")
    assert found is not None
    assert found.acks_late


@pytest.mark.parametrize("decorator", [AUDITED, WRAPPED])
@pytest.mark.parametrize("declare", ["task", "event_handler('a.b')"])
def test_a_reload_replaces_what_is_under_a_decorator(modules: Modules, decorator: str, declare: str) -> None:
    """One function under a decorator is replaced by a reload of its module, with or without functools.wraps."""
    modules.write("origin_audit", AUDITED)
    body = decorator + "\n@{0}\n@audited\ndef refund(app, event=None):\n    return {1}\n"
    module = modules.load("origin_shop", body.format(declare, 1))
    for number in (2, 3):
        modules.reload(module, "# moved\n" * number + body.format(declare, number))
        [declared] = (declared_tasks() if declare == "task" else declared_handlers()).values()
        assert declared.function(None, None) == number


def test_a_reload_may_not_add_a_second_one(modules: Modules) -> None:
    """A reload is a run like the first: a second function of a name in it is refused."""
    body = f"{AUDITED}\n@task\n@audited\ndef refund(app):\n    return 'refunded'\n"
    module = modules.load("origin_shop", body)
    with pytest.raises(DuplicateTaskError):
        modules.reload(module, f"{body}\n@task\n@audited\ndef delete_order(app):\n    return 'deleted'\n")


def test_a_module_that_is_imported_anew_replaces_its_tasks(modules: Modules) -> None:
    """A module that was removed, or whose first import failed, declares its tasks again when it is imported again."""
    with pytest.raises(ZeroDivisionError):
        modules.load("origin_shop", "@task\ndef refund(app):\n    return 1\n\n1 / 0\n")
    first = modules.load("origin_shop", "@task\ndef refund(app):\n    return 2\n")
    del sys.modules["origin_shop"]
    modules.load("origin_shop", "# moved\n@task\ndef refund(app):\n    return 3\n")
    assert (first.refund(None), run("origin_shop.refund")) == (2, 3)


def test_a_decorator_of_ones_own_around_task_is_no_obstacle(modules: Modules) -> None:
    """A module that declares its tasks through another module's helper can be reloaded."""
    modules.write("origin_helper", "def urgent(function):\n    return task(qos='asap')(function)\n")
    body = "from origin_helper import urgent\n\n@urgent\ndef refund(app):\n    return {0}\n"
    module = modules.load("origin_shop", body.format(1))
    modules.reload(module, "# moved\n" + body.format(2))
    assert run("origin_shop.refund") == 2


@pytest.mark.parametrize("option", ["", "(name='shop.refund')"])
def test_an_interactive_session_may_redefine(option: str) -> None:
    """In a session or a notebook a function that is written again takes the older one's place."""
    session = code.InteractiveInterpreter({"__name__": "__main__", "task": task, "functools": functools})
    for number in (1, 2):
        session.runsource(f"@task{option}\ndef refund(app):\n    return {number}\n", symbol="exec")
    assert run("shop.refund" if option else "__main__.refund") == 2


def test_an_interactive_session_tells_closures_apart(capsys: pytest.CaptureFixture[str]) -> None:
    """In a session two functions under one decorator are two, as in a module."""
    session = code.InteractiveInterpreter({"__name__": "__main__", "task": task})
    session.runsource(AUDITED, symbol="exec")
    for name in ("refund", "delete_order"):
        session.runsource(f"@task\n@audited\ndef {name}(app):\n    return {name!r}\n", symbol="exec")
    assert "DuplicateTaskError" in capsys.readouterr().err
    assert run("__main__.wrapper") == "refund"
