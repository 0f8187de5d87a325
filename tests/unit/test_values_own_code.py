"""Values whose own code raises an error when they are sent, returned or published: lazy objects above all."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pydantic
import pytest

from limetask import (
    ApplicationError,
    ArgumentsError,
    EventError,
    ResultError,
    SoftTimeLimitExceeded,
    TaskCall,
    UsageError,
)
from limetask.application import identifier_of
from limetask.arguments import encode_arguments
from limetask.events import encode_event
from limetask.results import encode_result
from limetask.sending import Preparer
from limetask.settings import Settings

LIMIT = 1024 * 1024


class DatabaseGoneError(Exception):
    """What the code of a value raises."""


def fail(*_: Any) -> Any:
    raise DatabaseGoneError("no connection")


class LazyObject:
    """As Django's SimpleLazyObject: it finds out what it is when it is asked, and then has its class."""

    def __init__(self, find: Callable[[], Any] = fail) -> None:
        self._find = find

    @property
    def __class__(self) -> type:
        return type(self._find())

    @__class__.setter
    def __class__(self, kind: type) -> None: ...


class LazyMapping(Mapping[str, Any]):
    __getitem__ = __iter__ = __len__ = fail


class LazyDict(dict[str, Any]):
    __iter__ = keys = items = values = fail


class LazyList(list[Any]):
    __iter__ = __len__ = fail


class LazySet(set[Any]):
    __iter__ = fail


class Zone(tzinfo):
    utcoffset = dst = tzname = fail


class Day(date):
    isoformat = fail


class Hour(time):
    def isoformat(self, timespec: str = "auto") -> str:
        return str(fail(timespec))


class Price(Decimal):
    __str__ = fail


class Meta(type):
    def __getattribute__(cls, name: str) -> Any:
        raise DatabaseGoneError(name)


class OfMeta(metaclass=Meta):
    """An object whose class cannot be looked at."""


class Unshowable:
    __repr__ = fail


class LazyText:
    """As Django's and Babel's lazy translations are: no text, and all that can be done with one."""

    def __mod__(self, values: object) -> str:
        return str(self) % values

    def __contains__(self, part: str) -> bool:
        return part in str(self)

    def __iter__(self) -> Iterator[str]:
        return iter(str(self))

    __str__ = fail


class ModelLike:
    """As Pydantic's secrets and URLs: with a serializer, without `model_dump`."""

    __pydantic_serializer__ = None


CULPRITS: dict[str, Any] = {
    "lazy object": LazyObject(),
    "dict": LazyDict(a=1),
    "list": LazyList([1]),
    "set": LazySet({1}),
    "zone of a datetime": datetime(2026, 1, 1, tzinfo=Zone()),
    "zone of a time": time(1, tzinfo=Zone()),
    "date": Day(2026, 1, 1),
    "time": Hour(1),
    "decimal": Price(1),
}


@pytest.mark.parametrize("name", CULPRITS)
@pytest.mark.parametrize(
    ("args", "kwargs", "path"),
    [
        (lambda value: [1, value], lambda _: {}, "argument 2"),
        (lambda _: [], lambda value: {"a": 1, "deal": {"b": [0, value]}}, "argument 'deal'['b'][1]"),
    ],
    ids=["positional", "deep"],
)
def test_an_argument_whose_own_code_raises_is_named(name: str, args: Any, kwargs: Any, path: str) -> None:
    """The error is ours, leads to the value, says what its code raised, and is chained to that."""
    value = CULPRITS[name]
    with pytest.raises(ArgumentsError) as caught:
        encode_arguments(args(value), kwargs(value), LIMIT)
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    assert str(caught.value) == (
        f"{path} is a value of type {kind}, and reading it raises DatabaseGoneError: no connection: "
        "send what it stands for as a plain value"
    )
    assert isinstance(caught.value.__cause__, DatabaseGoneError)


@pytest.mark.parametrize("make", [lambda: LazyMapping(), lambda: OfMeta()], ids=["mapping", "metaclass"])
def test_an_argument_of_an_unknown_type_is_not_asked_what_is_in_it(make: Any) -> None:
    """What no message carries is refused by its type, whatever looking into it would raise, or however long it took."""
    with pytest.raises(ArgumentsError, match=r"argument 'deal'\[0\] is a value of type .*send a plain value, such as"):
        encode_arguments([], {"deal": [make()]}, LIMIT)


def test_a_key_that_cannot_be_shown_is_refused_like_any_other() -> None:
    """The path to a value leads through keys, and their `__repr__` is their own."""
    for key, value in ((Unshowable(), 1), ("a", {Unshowable(): object()})):
        with pytest.raises(ArgumentsError, match=r"a key of argument 1.* is a value of type .*\.Unshowable"):
            encode_arguments([{key: value}], {}, LIMIT)


def test_an_error_that_cannot_be_shown_is_told_by_its_type() -> None:
    """The `__str__` of what a value's code raises may raise as well."""

    class BrokenError(Exception):
        __str__ = fail

    def find() -> Any:
        raise BrokenError

    with pytest.raises(ArgumentsError, match=r"raises BrokenError: \(its message raises DatabaseGoneError\)"):
        encode_arguments([LazyObject(find)], {}, LIMIT)


def test_the_soft_time_limit_of_the_task_that_sends_is_not_an_error_of_an_argument() -> None:
    """It may be raised anywhere in a body, so also while an argument is read."""

    def find() -> Any:
        raise SoftTimeLimitExceeded("over")

    for read in (
        lambda value: encode_arguments([value], {}, LIMIT),
        identifier_of,
        lambda value: encode_result({(1, 2): value}, LIMIT),
    ):
        with pytest.raises(SoftTimeLimitExceeded):
            read(LazyObject(find))


@pytest.mark.parametrize(
    "wrap",
    [lambda value: value, lambda value: [value], lambda value: {(1, 2): value}, lambda value: {b"a": [value]}],
    ids=["alone", "in a list", "under a tuple", "under bytes"],
)
@pytest.mark.parametrize("name", ["lazy object", "date", "decimal"])
def test_a_result_whose_own_code_raises_is_refused(name: str, wrap: Any) -> None:
    """Whatever it raises, and wherever in the result it is, the error is that of a result."""
    with pytest.raises(ResultError, match="the result cannot be expressed as JSON: "):
        encode_result(wrap(CULPRITS[name]), LIMIT)


def test_a_result_tells_what_its_code_raised() -> None:
    """The message is all that the status of a task has of it."""
    for result in (LazyObject(), [LazyMapping()], {(1, 2): LazyDict(a=1)}):
        with pytest.raises(ResultError, match="DatabaseGoneError: no connection"):
            encode_result(result, LIMIT)


def test_an_event_whose_own_code_raises_is_refused() -> None:
    """The body of an event is read as a result is; its key and application are shown only if they can be."""
    with pytest.raises(EventError, match=r"'shop\.paid' cannot be published: .*DatabaseGoneError: no connection"):
        encode_event("acme", "shop.paid", {"order": LazyObject()}, None, LIMIT)
    with pytest.raises(EventError, match="is no routing key"):
        encode_event("acme", Unshowable(), None, None, LIMIT)  # type: ignore[arg-type]


@pytest.mark.parametrize("offset", [timedelta(seconds=1172), -timedelta(hours=3, seconds=7)], ids=str)
def test_a_moment_arrives_exactly_whatever_the_offset_of_its_zone(offset: timedelta) -> None:
    """Offsets had seconds once. No standard for JSON knows them: the moment is in UTC then, and not rounded."""

    class Old(tzinfo):
        def utcoffset(self, _: datetime | None) -> timedelta:
            return offset

        dst = tzname = fail

    for zone in (Old(), ZoneInfo("Europe/Amsterdam")):
        moment = datetime(1930, 5, 1, 12, tzinfo=zone)
        received = datetime.fromisoformat(orjson.loads(encode_result([moment], LIMIT))[0])
        assert received == moment
        assert received.utcoffset() == timedelta(0)


def test_a_moment_keeps_an_offset_of_whole_minutes() -> None:
    """As it has always been: in a result, in a dataclass, with and without microseconds or a zone."""
    moments = [
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        datetime(2026, 7, 2, 3, 4, 5, 6, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime(1, 1, 1),
    ]
    assert orjson.loads(encode_result(moments, LIMIT)) == [
        "2026-01-02T03:04:05+00:00",
        "2026-07-02T03:04:05.000006+02:00",
        "0001-01-01T00:00:00",
    ]


class Tenant:
    @property
    def identifier(self) -> str:
        return str(fail())


@pytest.mark.parametrize("kind", [Tenant, LazyObject])
def test_an_application_whose_own_code_raises_is_refused(kind: Any) -> None:
    """The identifier may come from a database."""
    with pytest.raises(ApplicationError, match=r"cannot be read: it raises DatabaseGoneError: no connection") as caught:
        identifier_of(kind())
    assert kind.__qualname__ in str(caught.value)
    assert isinstance(caught.value.__cause__, DatabaseGoneError)


@pytest.mark.parametrize(
    ("app", "shown"),
    [
        (Unshowable(), f"<{__name__}.Unshowable whose repr raises DatabaseGoneError>"),
        (10**5000, "a whole number of thousands of digits"),
    ],
    ids=["object", "huge number"],
)
def test_an_application_that_cannot_be_shown_is_refused(app: Any, shown: str) -> None:
    """The error that shows it does not fail over that."""
    with pytest.raises(ApplicationError, match=f"{shown} is neither"):
        identifier_of(app)


def test_an_identifier_is_plain_text_whatever_text_it_was() -> None:
    """What is sent, hashed and compared must not have code of its own."""

    class Name(str):
        __slots__ = ()
        strip = __str__ = fail

    assert type(identifier_of(Name("acme"))) is str
    assert identifier_of(Name("acme")) == "acme"


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (LazyObject, dict),
        (list, LazyObject),
        (lambda: LazyList([1]), dict),
        (list, lambda: LazyDict(a=1)),
    ],
    ids=["lazy args", "lazy kwargs", "list", "dict"],
)
def test_a_call_whose_own_code_raises_is_refused(args: Any, kwargs: Any) -> None:
    """All of a call may be lazy."""
    with pytest.raises(ArgumentsError, match="DatabaseGoneError: no connection") as caught:
        preparer().task(TaskCall("a.b", "acme", args(), kwargs()))
    assert isinstance(caught.value.__cause__, DatabaseGoneError)


def test_a_call_that_cannot_be_shown_is_refused() -> None:
    """The error that shows it does not fail over that."""
    with pytest.raises(UsageError, match=r"Unshowable whose repr raises DatabaseGoneError> is not a call"):
        preparer().tasks([Unshowable()])  # type: ignore[list-item]


def preparer() -> Preparer:
    return Preparer(Settings(), "replies", None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "way_out"),
    [
        (collections.UserString("a"), "str(x)"),
        (LazyText(), "str(x)"),
        (itertools.count(), "list(itertools.islice(x, 10))"),
        (itertools.cycle([1]), "list(itertools.islice(x, 10))"),
        (itertools.repeat(1), "list(itertools.islice(x, 10))"),
        (itertools.chain([1]), "list(x)"),
        (collections.UserList([1]), "list(x)"),
        (pydantic.AnyUrl("https://localhost/"), "str(x)"),
        (pydantic.SecretStr("a"), "str(x), which hides it, or x.get_secret_value(), which everybody can read then"),
        (pydantic.SecretBytes(b"a"), "str(x), which hides it, or x.get_secret_value(), which everybody can read then"),
        (ModelLike(), "its text, its key or a dict"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_advice_fits_the_value(value: Any, way_out: str) -> None:
    """A text is sent as one and not letter by letter, and what never ends is not to be read until its end."""
    with pytest.raises(ArgumentsError) as refused:
        encode_arguments([value], {}, LIMIT)
    assert str(refused.value).endswith(f"send a plain value, such as {way_out}")
    with pytest.raises(ResultError) as failed:
        encode_result([value], LIMIT)
    assert str(failed.value).endswith(
        f"of type {type(value).__module__}.{type(value).__qualname__}: convert it, such as with {way_out}"
    )


def test_a_lazy_object_that_is_a_text_is_sent_as_one() -> None:
    """Its class says so, although it has no methods of a text."""
    with pytest.raises(ArgumentsError, match=r"such as str\(x\)$"):
        encode_arguments([LazyObject(str)], {}, LIMIT)
