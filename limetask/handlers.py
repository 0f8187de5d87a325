"""`@event_handler`: declare a function that is called for events."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args

from limetask.default_names import default_name
from limetask.errors import DeclarationError, DuplicateHandlerError, EventPatternError, TaskNameError
from limetask.foreign import shortened
from limetask.functions import (
    advice_on_one_name,
    check_application_is_first,
    check_can_be_called,
    check_is_function,
    place_of,
    signature_of,
)
from limetask.origin import is_redeclaration, origin_of_caller
from limetask.patterns import EventPattern, on_failure, on_success
from limetask.registry import check_task_name, check_time_limits
from limetask.retry import Retry

Mode = Literal["shared", "broadcast"]
MODES: tuple[Mode, ...] = get_args(Mode)

# "#." + its queue's name is a binding, and the queue's name comes behind 24 bits in the key of a delayed message: 255
# bytes for both, the longest namespace and the identity of a broadcast's daemon.
MAX_HANDLER_NAME_BYTES = 80
# Each takes a thread, or a place in the loop, and the broker counts what it has delivered in 16 bits.
MAX_CONCURRENCY = 1000

Function = TypeVar("Function", bound=Callable[..., Any])


class HandlerDeclaration:
    """A function, the events that it is called for, and what happens if it fails."""

    def __init__(
        self,
        function: Callable[..., Any],
        patterns: Sequence[str | EventPattern],
        *,
        name: str,
        mode: Mode = "shared",
        retry: int | Retry = 5,
        concurrency: int = 1,
        time_limit: float | None = None,
        soft_time_limit: float | None = None,
    ) -> None:
        """Raises a DeclarationError for a function or an option that cannot work."""
        _check_function(function)
        _check_name(name)
        _check_options(name, mode, concurrency)
        self.origin = origin_of_caller()
        check_time_limits(f"event handler {name!r}", time_limit, soft_time_limit)
        self.function = function
        self.name = name
        self.patterns = _patterns(name, patterns)
        self.mode = mode
        self.retry = _retry(name, retry)
        self.concurrency = concurrency
        self.time_limit = time_limit
        self.soft_time_limit = soft_time_limit

    @property
    def is_async(self) -> bool:
        """True if the function is an `async def`."""
        return inspect.iscoroutinefunction(self.function)

    @property
    def bindings(self) -> frozenset[str]:
        """The topic patterns that bring it all events that it wants, and perhaps more."""
        return frozenset(pattern.binding for pattern in self.patterns)

    def wants(self, routing_key: str, task_name: str | None) -> bool:
        """Return True for an event with this routing key, of this task (None for one that is not of a task)."""
        return any(pattern.fits(routing_key, task_name) for pattern in self.patterns)


_declared: dict[str, HandlerDeclaration] = {}


def event_handler(
    *patterns: str | EventPattern,
    name: str | None = None,
    mode: Mode = "shared",
    retry: int | Retry = 5,
    concurrency: int = 1,
    time_limit: float | None = None,
    soft_time_limit: float | None = None,
) -> Callable[[Function], Function]:
    """Declare a function, plain or `async def`, as a handler of the events that fit any of the patterns.

    A pattern is text such as "core.task.#.failure.v1", or what `on_failure` and `on_success` return. The function is
    called with the application and the `Event`, by the `events` role of a worker that imports it. It stays what it was.

    `name`, by default `module.function`, is that of its queue: what happens while no worker runs is kept there, and
    delivered later. With `mode` "shared" each event is handled once across all workers; with "broadcast" once in every
    worker that runs, and only while it does. An event that it raises an exception for is handled again, as `retry` says
    (a number of times, or a `Retry`), and then becomes a dead letter. An event may come twice: its `id` tells.
    `concurrency` is how many events a worker handles at a time; with 1 they come in their order.

    After `soft_time_limit` seconds SoftTimeLimitExceeded is raised in the function. After `time_limit` seconds, by
    default and at most 95 % of `Settings.consumer_timeout`, the event counts as failed, as by an exception. A function
    cannot be ended from outside, so its process then takes no more events, and makes room for another.

    Raises DeclarationError, EventPatternError, TaskNameError or DuplicateHandlerError for what cannot work.
    """
    _check_is_called(patterns)
    wanted = _made(patterns)

    def declare(function: Function) -> Function:
        _register(
            HandlerDeclaration(
                function,
                wanted,
                name=default_name(function, "@event_handler(..., name={name!r})") if name is None else name,
                mode=mode,
                retry=retry,
                concurrency=concurrency,
                time_limit=time_limit,
                soft_time_limit=soft_time_limit,
            )
        )
        return function

    return declare


def declared_handlers() -> Mapping[str, HandlerDeclaration]:
    """Return all handlers that this process has declared, by name."""
    return dict(_declared)


def _register(declaration: HandlerDeclaration) -> None:
    other = _declared.get(declaration.name)
    if other is not None and other.function is declaration.function:
        raise DuplicateHandlerError(
            f"{place_of(other.function)} is declared twice as event handler {declaration.name!r}: give all patterns to "
            "one @event_handler(..., ...), or each its own name=..."
        )
    if other is not None and not is_redeclaration(
        other.function, other.origin, declaration.function, declaration.origin
    ):
        raise DuplicateHandlerError(
            f"two functions are declared as event handler {declaration.name!r}: {place_of(other.function)}, declared "
            f"at {other.origin.place}, and {place_of(declaration.function)}, declared at {declaration.origin.place}. "
            f"{advice_on_one_name(declaration.function, '@event_handler(..., name=...)')}"
        )
    _declared[declaration.name] = declaration


def _check_is_called(patterns: Sequence[object]) -> None:
    """Raise an error for `@event_handler`, or `on_failure` in it, without parentheses."""
    for pattern in patterns:
        if pattern is on_failure or pattern is on_success:
            name = pattern.__name__
            raise EventPatternError(f"{name} makes a pattern when it is called: @event_handler({name}())")
        if callable(pattern):
            raise DeclarationError(
                "@event_handler needs a pattern: @event_handler('core.task.#.failure.v1') above "
                f"{getattr(pattern, '__name__', repr(pattern))}"
            )


def _check_function(function: Any) -> None:
    check_is_function(function, "@event_handler", "def notify(app, event)")
    name = function.__name__
    what, example = f"event handler {name!r}", f"def {name if name.isidentifier() else 'notify'}(app, event)"
    check_can_be_called(function, what, f"declare it as `{example}`", example)
    check_application_is_first(function, what, example)
    try:
        signature_of(function).bind(None, None)
    except TypeError as exc:
        raise DeclarationError(
            f"event handler {name}{signature_of(function)} cannot be called with an application and an event ({exc}): "
            f"declare it as `{example}`"
        ) from None


def _check_name(name: str) -> None:
    try:
        check_task_name(name)
    except TaskNameError as exc:
        raise TaskNameError(f"an event handler is named like a task: {exc}") from None
    length = len(name.encode())
    if length > MAX_HANDLER_NAME_BYTES:
        raise TaskNameError(
            f"event handler name {name!r} has {length} bytes and may have {MAX_HANDLER_NAME_BYTES}: "
            "give it a shorter one, @event_handler(..., name=...)"
        )


def _check_options(name: str, mode: object, concurrency: object) -> None:
    if mode not in MODES:
        raise DeclarationError(f"event handler {name!r}: mode is one of {', '.join(MODES)}, not {shortened(mode)}")
    if type(concurrency) is not int or not 1 <= concurrency <= MAX_CONCURRENCY:
        raise DeclarationError(
            f"event handler {name!r}: concurrency is a whole number from 1 to {MAX_CONCURRENCY}, not "
            f"{shortened(concurrency)}"
        )


def _patterns(name: str, patterns: Sequence[str | EventPattern]) -> tuple[EventPattern, ...]:
    if not patterns:
        raise EventPatternError(f"event handler {name!r} has no pattern: it would never be called")
    return _made(patterns)


def _made(patterns: Sequence[str | EventPattern]) -> tuple[EventPattern, ...]:
    return tuple(one if isinstance(one, EventPattern) else EventPattern(one) for one in patterns)


def _retry(name: str, retry: object) -> Retry:
    if isinstance(retry, Retry):
        return retry
    if type(retry) is not int or retry < 0:
        raise DeclarationError(
            f"event handler {name!r}: retry is a number of times from 0 or a Retry, not {shortened(retry)}"
        )
    return Retry(times=retry)
