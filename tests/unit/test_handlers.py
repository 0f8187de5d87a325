"""Declarations of event handlers: which functions, names and options make one, and which events it wants."""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from limetask import (
    Application,
    DeclarationError,
    DuplicateHandlerError,
    Event,
    EventPattern,
    EventPatternError,
    MessageRefusedError,
    Retry,
    TaskNameError,
    event_handler,
    handlers,
    on_failure,
    on_success,
    task,
)
from limetask.handlers import MAX_HANDLER_NAME_BYTES, HandlerDeclaration, declared_handlers
from limetask.message import HandlerBindings
from limetask.records import decode_handlers, encode_handlers

FAILURES = "core.task.#.failure.v1"
MODULE = __name__


@pytest.fixture(autouse=True)
def _no_declared_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry is the process's: each test has an empty one."""
    monkeypatch.setattr(handlers, "_declared", {})


def plain(app: Application, event: Event) -> None:
    pass


async def coroutine(app: Application, event: Event) -> None:
    pass


def generator(app: Application, event: Event) -> Iterator[int]:
    yield 1


async def async_generator(app: Application, event: Event) -> AsyncIterator[int]:
    yield 1


def with_default(app: Application, event: Event, retries: int = 3, *, loud: bool = False) -> None:
    pass


def with_any_arguments(*values: Any, **options: Any) -> None:
    pass


def with_positional_only(app: Application, event: Event, /) -> None:
    pass


def without_parameters() -> None:
    pass


def with_the_event_only(event: Event) -> None:
    pass


def with_the_event_first(event: Event, app: Any) -> None:
    pass


def with_one_more(app: Application, event: Event, mailer: str) -> None:
    pass


def with_one_more_by_name(app: Application, event: Event, *, mailer: str) -> None:
    pass


def with_the_event_by_name(app: Application, *, event: Event) -> None:
    pass


def with_names_only(**values: Any) -> None:
    pass


class Callables:
    def method(self, app: Application, event: Event) -> None:
        pass

    @classmethod
    def class_method(cls, app: Application, event: Event) -> None:
        pass

    def __call__(self, app: Application, event: Event) -> None:
        pass


def passed_on(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def declaration(function: Any = plain, *patterns: Any, **options: Any) -> HandlerDeclaration:
    return HandlerDeclaration(function, patterns or (FAILURES,), **({"name": "pkg.handlers.notify"} | options))


def test_a_handler_is_declared_in_two_lines() -> None:
    """The decorator declares the function under its dotted name, and gives it back as it was."""
    decorated = event_handler(FAILURES)(plain)
    assert decorated is plain
    made = declared_handlers()[f"{MODULE}.plain"]
    assert (made.name, made.mode, made.retry, made.concurrency) == (f"{MODULE}.plain", "shared", Retry(5), 1)
    assert (made.function, made.is_async, made.patterns) == (plain, False, (EventPattern(FAILURES),))


def test_a_handler_keeps_its_options() -> None:
    """All options are what they were declared as; a number of retries is a `Retry`, and there are no own limits."""
    event_handler(FAILURES, name="pkg.notify", mode="broadcast", retry=2, concurrency=8)(coroutine)
    event_handler(FAILURES, name="pkg.patient", retry=Retry(100, delay=60))(coroutine)
    event_handler(FAILURES, name="pkg.limited", time_limit=60, soft_time_limit=50.5)(coroutine)
    made = declared_handlers()
    first, limited = made["pkg.notify"], made["pkg.limited"]
    assert (first.time_limit, first.soft_time_limit) == (None, None)
    assert (limited.time_limit, limited.soft_time_limit) == (60, 50.5)
    assert (first.mode, first.retry, first.concurrency, first.is_async) == ("broadcast", Retry(2), 8, True)
    assert made["pkg.patient"].retry == Retry(100, delay=60)


def test_the_declared_handlers_are_a_copy() -> None:
    """Whoever gets all handlers cannot change the registry with them."""
    event_handler(FAILURES)(plain)
    found = declared_handlers()
    assert isinstance(found, dict)
    found.clear()
    assert len(declared_handlers()) == 1


@pytest.mark.parametrize(
    "function",
    [
        plain,
        coroutine,
        with_default,
        with_any_arguments,
        with_positional_only,
        passed_on(plain),
        lambda app, event: None,
    ],
)
def test_a_function_of_an_application_and_an_event_makes_a_handler(function: Any) -> None:
    """Any function that can be called with two arguments is accepted."""
    assert declaration(function).function is function


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (without_parameters, "too many positional arguments"),
        (with_the_event_only, "too many positional arguments"),
        (with_the_event_by_name, "too many positional arguments"),
        (with_names_only, "too many positional arguments"),
        (with_one_more, "mailer"),
        (with_one_more_by_name, "mailer"),
        (passed_on(with_the_event_only), "too many positional arguments"),
    ],
)
def test_a_wrong_signature_is_refused_with_the_right_one(function: Any, complaint: str) -> None:
    """A function that cannot be called with two arguments is refused with its signature, the reason and a right one."""
    with pytest.raises(DeclarationError) as caught:
        declaration(function)
    message = str(caught.value)
    assert message.startswith(f"event handler {function.__name__}(")
    assert complaint in message
    assert message.endswith(f"declare it as `def {function.__name__}(app, event)`")


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (Callables.method, "is a method of Callables, and a worker has no object to call it on"),
        (with_the_event_first, "has the parameter 'app' after 'event'"),
        (contextlib.contextmanager(generator), "is a context manager"),
        (contextlib.asynccontextmanager(async_generator), "is a context manager"),
    ],
)
def test_what_could_be_called_and_would_do_something_else_is_refused(function: Any, complaint: str) -> None:
    """Methods, context managers, and functions that would take the application for the event, are no handlers."""
    with pytest.raises(DeclarationError, match=complaint) as caught:
        declaration(function)
    assert f"`def {function.__name__}(app, event)`" in str(caught.value)


@pytest.mark.parametrize("function", [generator, async_generator])
def test_a_handler_does_not_yield(function: Any) -> None:
    """A generator would never run, so it is refused with how to declare it."""
    with pytest.raises(DeclarationError, match=rf"yields, .*`def {function.__name__}\(app, event\)`"):
        declaration(function)


@task(name="pkg.tasks.a_task")
def a_task(app: Application, event: object) -> None:
    pass


@pytest.mark.parametrize(
    "function",
    [
        print,
        Callables,
        Callables(),
        Callables().method,
        Callables.class_method,
        functools.partial(with_one_more, mailer="m"),
        functools.lru_cache(plain),
        classmethod(cast(Any, plain)),
        a_task,
        "pkg.notify",
        None,
    ],
    ids=lambda value: type(value).__name__,
)
def test_anything_but_a_function_makes_no_handler(function: Any) -> None:
    """Classes, bound methods, partials, tasks and the like are refused; the message shows what is right."""
    with pytest.raises(DeclarationError, match=r"must decorate a function, .*`def notify\(app, event\)`") as caught:
        declaration(function)
    assert repr(function)[:40] in str(caught.value)
    with pytest.raises(DeclarationError):
        event_handler(FAILURES)(function)


@pytest.mark.parametrize(
    "function", [plain, coroutine, Callables, Callables(), functools.partial(plain), a_task, lambda app, event: None]
)
def test_the_decorator_needs_its_parentheses(function: Any) -> None:
    """`@event_handler` alone, above whatever, says at once what is missing; it would never be called."""
    with pytest.raises(DeclarationError) as caught:
        event_handler(function)
    name = getattr(function, "__name__", repr(function))
    assert str(caught.value) == (
        f"@event_handler needs a pattern: @event_handler('core.task.#.failure.v1') above {name}"
    )
    assert declared_handlers() == {}


@pytest.mark.parametrize("make", [on_failure, on_success])
def test_on_failure_needs_its_parentheses_too(make: Any) -> None:
    """`@event_handler(on_failure)` is told what to write."""
    with pytest.raises(EventPatternError) as caught:
        event_handler(make)
    name = make.__name__
    assert str(caught.value) == f"{name} makes a pattern when it is called: @event_handler({name}())"


def test_a_handler_needs_a_pattern() -> None:
    """`@event_handler()` is refused by the handler's name."""
    with pytest.raises(EventPatternError, match=rf"'{MODULE}\.plain' has no pattern: it would never be called"):
        event_handler()(plain)


@pytest.mark.parametrize("pattern", ["", "a..b", "a.b*", 3, None, ["a.b"], "x" * 256, "core.task.*.failure.v1"])
def test_a_wrong_pattern_is_refused(pattern: Any) -> None:
    """Each of the patterns is checked, not only the first."""
    for patterns in ((pattern,), (FAILURES, pattern)):
        with pytest.raises(EventPatternError):  # where the pattern stands, before there is a function
            event_handler(*patterns)
    assert declared_handlers() == {}


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("notify", "'notify' is no task name: it must be words joined by dots"),
        ("", "needs a name"),
        (3, "needs a name"),
        ("pkg. notify", "must be words joined by dots"),
        ("pkg.#", "must be words joined by dots"),
        ("pkg.*", "must be words joined by dots"),
        ("pkg.\ud800", "must be words joined by dots"),
        ("pkg." + "x" * 77, "has 81 bytes and may have 80: give it a shorter one, @event_handler(..., name=...)"),
        ("pkg." + "ä" * 39, "has 82 bytes and may have 80"),
    ],
    ids=ascii,
)
def test_a_wrong_name_is_refused(name: Any, complaint: str) -> None:
    """A name that could not be that of a queue, or of a topic's words, is refused with the reason."""
    with pytest.raises(TaskNameError) as caught:
        event_handler(FAILURES, name=name)(plain)
    assert complaint in str(caught.value)
    assert "event handler" in str(caught.value)


def test_the_longest_name_is_accepted() -> None:
    """80 bytes are the most, however many letters they are."""
    for name in ("pkg." + "x" * (MAX_HANDLER_NAME_BYTES - 4), "pkg." + "ä" * ((MAX_HANDLER_NAME_BYTES - 4) // 2)):
        assert declaration(name=name).name == name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "all"}, "mode is one of shared, broadcast, not 'all'"),
        ({"mode": None}, "mode is one of shared, broadcast, not None"),
        ({"mode": ["shared"]}, "mode is one of shared, broadcast, not ['shared']"),
        ({"retry": -1}, "retry is a number of times from 0 or a Retry, not -1"),
        ({"retry": 1.5}, "retry is a number of times from 0 or a Retry, not 1.5"),
        ({"retry": True}, "retry is a number of times from 0 or a Retry, not True"),
        ({"retry": None}, "retry is a number of times from 0 or a Retry, not None"),
        ({"retry": "3"}, "retry is a number of times from 0 or a Retry, not '3'"),
        ({"concurrency": 0}, "concurrency is a whole number from 1 to 1000, not 0"),
        ({"concurrency": 1001}, "concurrency is a whole number from 1 to 1000, not 1001"),
        pytest.param(
            {"concurrency": 10**5000},
            "concurrency is a whole number from 1 to 1000, not a whole number of thousands of digits",
            id="huge-1",
        ),
        pytest.param(
            {"retry": -(10**5000)},
            "retry is a number of times from 0 or a Retry, not a whole number of thousands of digits",
            id="huge-2",
        ),
        pytest.param(
            {"time_limit": 10**9},
            "time_limit may be 31,622,400 seconds (a year), not 1000000000; None is no limit",
            id="huge-3",
        ),
        ({"concurrency": True}, "concurrency is a whole number from 1 to 1000, not True"),
        ({"concurrency": 2.0}, "concurrency is a whole number from 1 to 1000, not 2.0"),
        ({"time_limit": 0}, "time_limit is a number of seconds above 0, not 0"),
        ({"time_limit": "5"}, "time_limit is a number of seconds above 0, not '5'"),
        ({"soft_time_limit": -1.0}, "soft_time_limit is a number of seconds above 0, not -1.0"),
        ({"soft_time_limit": 5, "time_limit": 5}, "soft_time_limit must be less than time_limit, or it comes too late"),
    ],
    ids=str,
)
def test_a_wrong_option_is_refused(options: dict[str, Any], message: str) -> None:
    """An option with a wrong value is refused; the message names handler, option and value."""
    with pytest.raises(DeclarationError) as caught:
        declaration(**options)
    assert str(caught.value) == f"event handler 'pkg.handlers.notify': {message}"


def test_a_handler_may_never_try_again() -> None:
    """`retry=0` is a choice: the first exception makes a dead letter."""
    assert declaration(retry=0).retry.delay_before(1) is None


def test_a_handler_wants_what_fits_any_of_its_patterns() -> None:
    """Several patterns are joined by or; what only their bindings fit is not wanted."""
    made = declaration(plain, on_failure("shop.*.pay"), on_success("shop.tasks.add"), "shop.order.#")
    assert made.bindings == {"core.task.shop.#.failure.v1", "core.task.shop.tasks.add.success.v1", "shop.order.#"}
    assert made.wants("core.task.shop.tasks.pay.failure.v1", "shop.tasks.pay")
    assert made.wants("core.task.shop.tasks.add.success.v1", "shop.tasks.add")
    assert made.wants("shop.order.paid.v1", None)
    assert not made.wants("core.task.shop.tasks.add.failure.v1", "shop.tasks.add")
    assert not made.wants("core.task.shop.tasks.pay.success.v1", "shop.tasks.pay")
    assert not made.wants("shop.invoice.v1", None)


def test_equal_bindings_are_one() -> None:
    """Two shell patterns with the same widest binding are bound once, so that an event comes once."""
    made = declaration(plain, on_failure("shop.a*"), on_failure("shop.b*"))
    assert made.bindings == {"core.task.shop.#.failure.v1"}
    assert made.wants("core.task.shop.bb.failure.v1", "shop.bb")
    assert not made.wants("core.task.shop.cc.failure.v1", "shop.cc")


def test_two_functions_under_one_name_are_refused() -> None:
    """A second function under a name is refused; the message tells where both stand, and the first one stays."""
    event_handler(FAILURES, name="pkg.notify")(plain)
    with pytest.raises(DuplicateHandlerError, match=r"@event_handler\(\.\.\., name=\.\.\.\)") as caught:
        event_handler(FAILURES, name="pkg.notify")(coroutine)
    for function in (plain, coroutine):
        assert f"{MODULE}.{function.__name__} ({__file__}:{function.__code__.co_firstlineno})" in str(caught.value)
    assert declared_handlers()["pkg.notify"].function is plain


def test_a_handler_is_decorated_once() -> None:
    """Two decorators on one function would leave only one's patterns, so the second is refused with what to write."""
    event_handler("shop.order.#")(plain)
    with pytest.raises(DuplicateHandlerError, match=r"give all patterns to one @event_handler\(\.\.\., \.\.\.\)"):
        event_handler(FAILURES)(plain)
    event_handler(FAILURES, name="pkg.notify")(plain)
    assert set(declared_handlers()) == {f"{MODULE}.plain", "pkg.notify"}


def test_a_handler_and_a_task_may_share_a_name() -> None:
    """Their queues differ, and so do their registries."""
    event_handler(FAILURES, name=a_task.name)(plain)
    assert declared_handlers()[a_task.name].function is plain


def write_module(path: Path, body: str) -> None:
    path.write_text(f"from limetask import event_handler\n\n{body}")


def test_reloading_a_module_replaces_its_handlers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a reload of its module a handler is the new function, with its new patterns."""
    module = tmp_path / "reloaded_handlers.py"
    write_module(module, "@event_handler('a.b')\ndef notify(app, event):\n    return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    imported = importlib.import_module("reloaded_handlers")
    try:
        write_module(module, "# moved\n@event_handler('c.d', retry=1)\ndef notify(app, event):\n    return 2\n")
        importlib.reload(imported)
    finally:
        del sys.modules["reloaded_handlers"]
    found = declared_handlers()["reloaded_handlers.notify"]
    assert (found.function(None, None), found.retry) == (2, Retry(1))
    assert found.bindings == {"c.d"}


def test_a_module_has_each_name_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second function of the same name in one module is a mistake and no reload."""
    module = tmp_path / "twice_handlers.py"
    handler = "@event_handler('a.b')\ndef notify(app, event):\n    pass\n"
    write_module(module, f"{handler}\n{handler}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with pytest.raises(DuplicateHandlerError, match=r"two functions are declared as event handler"):
        importlib.import_module("twice_handlers")


def test_what_a_worker_has_bound_survives_the_wire() -> None:
    """The record of bound handlers says the same after it has been encoded and decoded."""
    declared_at = datetime(2026, 10, 3, 9, 30, tzinfo=UTC)
    told = [
        HandlerBindings("pkg.notify", [FAILURES, "größe.#"], declared_at),
        HandlerBindings("pkg.other", [], declared_at),
    ]
    envelope = encode_handlers(told)
    assert envelope.kind == "handlers"
    assert decode_handlers(envelope.body) == told
    assert decode_handlers(encode_handlers([]).body) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}x",
        b"5",
        b"[5]",
        b"[{}]",
        b'[{"name":5,"bindings":[],"declared_at":"2026-10-03T09:30:00Z"}]',
        b'[{"name":"a.b","bindings":[5],"declared_at":"2026-10-03T09:30:00Z"}]',
        b'[{"name":"a.b","bindings":5,"declared_at":"2026-10-03T09:30:00Z"}]',
        b'[{"name":"a.b","bindings":[],"declared_at":"2026-10-03T09:30:00"}]',
    ],
)
def test_a_broken_record_of_handlers_is_refused(body: bytes) -> None:
    """Whatever arrives instead raises MessageRefusedError and nothing else."""
    with pytest.raises(MessageRefusedError, match="not a handlers record"):
        decode_handlers(body)
