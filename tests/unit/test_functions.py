"""Which functions can be declared: what a worker could not run as it is meant is refused where it is written."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from limetask import Application, DeclarationError, TaskNameError, event_handler, task
from limetask.functions import own_signature_of, signature_of
from limetask.registry import find_task

if TYPE_CHECKING:
    from somewhere import Deal, Platform  # type: ignore[import-not-found]


class Shop:
    def refund(self, app: Application) -> None:
        pass

    def rename(cls, name: str) -> None:  # noqa: N805 - as a class method is written
        pass

    @staticmethod
    def count(app: Application) -> int:
        return 3


def bound_like_celery(self: Any, deal: int) -> None:
    pass


def opened(app: Application) -> Iterator[int]:
    yield 1


async def opened_later(app: Application) -> AsyncIterator[int]:
    yield 1


def app_last(deal, app):  # type: ignore[no-untyped-def]
    pass


def app_last_with_types(deal: int, app: Application) -> None:
    pass


def app_by_name(deal: int, *, application: Any) -> None:
    pass


def app_after_any(*deals: int, app: Any) -> None:
    pass


def app_after_own_type(deal: Deal, app: Application | None) -> None:
    pass


def own_type_first(tenant: Platform, app: str) -> None:
    pass


def other_name_first(tenant, deal):  # type: ignore[no-untyped-def]
    pass


def app_twice(application: Application, app: str = "mobile") -> None:
    pass


def text_called_app(tenant, app: str, *, application: list[str]):  # type: ignore[no-untyped-def]
    pass


def with_names_for_type_checkers(app: Platform, deal: Deal | None = None) -> Deal:
    pass


def with_the_application_as_well(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator whose wrapper has the application first, though the function has it second."""

    @functools.wraps(function)
    def wrapper(app: Application, *args: Any) -> Any:
        return function(0, app, *args)

    return wrapper


def passed_on(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def with_an_object(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that makes the object which a method needs."""

    @functools.wraps(function)
    def wrapper(app: Application) -> Any:
        return function(Shop(), app)

    return wrapper


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (Shop.refund, "'shop.x' is a method of Shop, and a worker has no object to call it on"),
        (Shop.rename, "'shop.x' is a method of Shop"),
        (passed_on(Shop.refund), "'shop.x' is a method of Shop"),
        (bound_like_celery, "calls its first parameter 'self', and that is always the application"),
        (contextlib.contextmanager(opened), "is a context manager, and a worker would not enter it"),
        (contextlib.asynccontextmanager(opened_later), "is a context manager, and a worker would not enter it"),
        (opened, "yields, and a worker would run nothing of it"),
        (app_last, "has the parameter 'app' after 'deal', and the first argument is always the application"),
        (app_last_with_types, "has the parameter 'app' after 'deal'"),
        (app_by_name, "has the parameter 'application' after 'deal'"),
        (app_after_any, "has the parameter 'app' after 'deals'"),
        (app_after_own_type, "has the parameter 'app' after 'deal'"),
    ],
)
def test_what_a_worker_could_not_run_as_it_is_meant_is_refused(function: Any, complaint: str) -> None:
    """Methods, context managers, and functions with the application elsewhere are refused, with what is right."""
    with pytest.raises(DeclarationError) as caught:
        task(name="shop.x")(function)
    assert complaint in str(caught.value)
    assert find_task("shop.x") is None


@pytest.mark.parametrize(
    "function",
    [
        Shop.count,
        own_type_first,
        other_name_first,
        app_twice,
        text_called_app,
        with_names_for_type_checkers,
        with_the_application_as_well(app_last),
        with_an_object(Shop.refund),
        lambda tenant: None,
    ],
)
def test_the_application_may_have_any_name_and_type(function: Any) -> None:
    """A first parameter of any name is the application, also where another one looks like one and is not."""
    assert task(name="shop.x")(function).function is function


@pytest.mark.parametrize(
    ("given", "way_out"),
    [
        (staticmethod(opened), "put @staticmethod above it"),
        (classmethod(cast(Any, opened)), "declare a function, `def my_task(app, ...)`, that calls it"),
        (Shop, "declare a function, `def my_task(app, ...)`, that makes the object and uses it"),
        (Shop().refund, "declare a function, `def my_task(app, ...)`, that calls it"),
        (functools.partial(opened), "declare a function, `def my_task(app, ...)`, that calls it"),
        (len, "declare a function, `def my_task(app, ...)`, that calls it"),
        ("shop.x", "put it above `def my_task(app, ...)`"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_a_function_is_refused_with_a_way_out(given: Any, way_out: str) -> None:
    """An object that is not a function is refused with what to write instead."""
    with pytest.raises(DeclarationError) as caught:
        task(given)
    assert str(caught.value).startswith(f"@task must decorate a function, not {given!r}: ")
    assert str(caught.value).endswith(way_out)


def test_a_function_without_a_name_needs_one() -> None:
    """A lambda has no name that a sender could use."""
    nameless = lambda app, event=None: None  # noqa: E731
    for declare in (task, event_handler("shop.#")):
        with pytest.raises(TaskNameError, match=r"name"):
            declare(nameless)
    assert task(name="shop.nameless")(nameless).name == "shop.nameless"


def test_names_for_type_checkers_are_not_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module whose annotations name what is imported under TYPE_CHECKING can be imported and declares its tasks."""
    module = tmp_path / "annotated_tasks.py"
    future = "" if sys.version_info >= (3, 14) else "from __future__ import annotations\n"
    module.write_text(
        f"{future}from typing import TYPE_CHECKING\n"
        "from limetask import event_handler, task\n"
        "if TYPE_CHECKING:\n    from nowhere import Crm, Deal, Event\n\n"
        "@task\ndef refund(app: Crm, deal: Deal | None = None) -> list[Deal]:\n    return []\n\n"
        "@task\nasync def count(app: Crm) -> int:\n    return 1\n\n"
        "@event_handler('shop.#')\ndef notify(app: Crm, event: Event) -> None:\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "annotated_tasks", raising=False)
    __import__("annotated_tasks")
    monkeypatch.delitem(sys.modules, "annotated_tasks")
    refund = find_task("annotated_tasks.refund")
    assert refund is not None
    refund.check_arguments((5,), {})
    with pytest.raises(Exception, match="Deal"):
        refund.check_arguments((5, 6), {})
    for signature in (signature_of(refund.function), own_signature_of(refund.function)):
        assert list(signature.parameters) == ["app", "deal"]
