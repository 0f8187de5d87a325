"""Arguments on their way through a message: what arrives as it was sent, and what is refused on either side."""

from __future__ import annotations

import collections
import contextlib
import enum
import random
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgpack
import pytest

from limetask import ArgumentsError, MessageRefusedError, MessageTooLargeError
from limetask.arguments import decode_arguments, encode_arguments

LIMIT = 1024 * 1024
BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = ZoneInfo("America/New_York")
(DATETIME, DATE, TIME, TIMEDELTA, DECIMAL, UUID_, SET, FROZENSET) = range(1, 9)


@dataclass
class Order:
    number: int


class Point(NamedTuple):
    x: int
    y: int


class Colour(enum.Enum):
    RED = 1


def through_a_message(value: Any) -> Any:
    args, kwargs = decode_arguments(encode_arguments([value], {"named": value}, LIMIT))
    assert list(kwargs) == ["named"]
    assert len(args) == 1
    assert repr(args[0]) == repr(kwargs["named"])
    return args[0]


def refusal(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(ArgumentsError) as caught:
        encode_arguments(args, kwargs, LIMIT)
    return str(caught.value)


def body_of(args: Any, kwargs: Any = MappingProxyType({})) -> bytes:
    body: bytes = msgpack.packb({"args": args, "kwargs": dict(kwargs)})
    return body


def nested(depth: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = wrap([])
    for _ in range(depth):
        value = wrap([value])
    return value


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        -1,
        2**63 - 1,
        -(2**63),
        2**64 - 1,
        1.5,
        -0.0,
        1e308,
        float("inf"),
        "",
        "text",
        "Grüße \N{SNOWMAN} \N{GRINNING FACE} \x00",
        b"",
        b"\x00\xff",
        [],
        [1, "two", None, [3.0, [b"4"]]],
        {},
        {"a": {"b": [1, {"c": None}]}},
        {1: "one", -2: "minus two", 2**64 - 1: "big"},
        {1.5: "float", None: "none", True: "true", b"b": "bytes"},
        date(2026, 3, 29),
        date.min,
        date.max,
        time(1, 2, 3, 4),
        time(1, 2, tzinfo=UTC),
        time(23, 59, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
        timedelta(days=-1, seconds=1, microseconds=2),
        timedelta.max,
        timedelta.min,
        Decimal("1.10"),
        Decimal("-0"),
        Decimal("1E+5"),
        Decimal("1e-400"),
        Decimal("Infinity"),
        Decimal("123456789012345678901234567890.123456789"),
        uuid.UUID("01a1f86a-ff26-8399-9643-c18cc7d34d6f"),
        set(),
        {1, "two", None},
        frozenset(),
        frozenset({(1, 2), (3, (4, 5))}),
        {(1, "two"), (3, b"four")},
        {frozenset({1}), frozenset({2, 3})},
        {uuid.UUID(int=1): Decimal("1.5"), Decimal(2): date(2026, 1, 1)},
        [{"at": datetime(2026, 1, 1, tzinfo=UTC), "of": {Decimal("1.0"), uuid.UUID(int=2)}}],
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_arrives_as_it_was_sent(value: Any) -> None:
    """Positional or named, a value arrives equal, with the same type and the same representation."""
    received = through_a_message(value)
    assert received == value
    assert type(received) is type(value)
    if not isinstance(value, set | frozenset):
        assert repr(received) == repr(value)


@pytest.mark.parametrize("text", ["NaN", "sNaN", "-NaN123"])
def test_a_decimal_that_is_no_number_arrives_as_such(text: str) -> None:
    """Decimal's NaNs keep their kind, sign and payload."""
    assert str(through_a_message(Decimal(text))) == text


def test_a_float_that_is_no_number_arrives_as_such() -> None:
    """NaN arrives as NaN."""
    received = through_a_message(float("nan"))
    assert received != received


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 11, 20, 10, 5, 24, 134744, tzinfo=UTC),
        datetime(2026, 11, 20, tzinfo=timezone(timedelta(hours=5, minutes=45))),
        datetime(2026, 11, 20, tzinfo=timezone(timedelta(hours=1, minutes=2, seconds=3, microseconds=4))),
        datetime(2026, 7, 1, 12, tzinfo=BERLIN),
        datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("UTC")),
        datetime(1850, 1, 1, tzinfo=BERLIN),
        datetime.min.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))),
        datetime.max.replace(tzinfo=NEW_YORK),
        datetime.min.replace(tzinfo=BERLIN),
    ],
    ids=str,
)
def test_an_aware_datetime_arrives_with_its_zone(value: datetime) -> None:
    """An aware datetime arrives with the same wall time, offset and, if it has one, the same named zone."""
    received = through_a_message(value)
    assert received.replace(tzinfo=None) == value.replace(tzinfo=None)
    assert received.utcoffset() == value.utcoffset()
    assert received.tzinfo == value.tzinfo


@pytest.mark.parametrize("fold", [0, 1])
@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK], ids=str)
def test_both_hours_of_a_clock_change_arrive_apart(zone: ZoneInfo, fold: int) -> None:
    """The hour that comes twice when summer time ends keeps telling which of the two it is."""
    sunday = 25 if zone is BERLIN else 1
    hour = 2 if zone is BERLIN else 1
    value = datetime(2026, 10 if zone is BERLIN else 11, sunday, hour, 30, tzinfo=zone, fold=fold)
    received = through_a_message(value)
    assert (received.fold, received.utcoffset()) == (fold, value.utcoffset())
    assert received.tzinfo is zone
    assert received.timestamp() == value.timestamp()


def test_an_hour_that_does_not_exist_arrives_as_the_same_moment() -> None:
    """A wall time that the clock change in spring skips is the same moment on arrival."""
    value = datetime(2026, 3, 29, 2, 30, tzinfo=BERLIN)
    assert through_a_message(value).timestamp() == value.timestamp()


def test_an_unknown_zone_leaves_the_moment_right() -> None:
    """Where the sender's zone is not known the datetime arrives with its offset alone."""
    text = b"2026-07-01T12:00:00+02:00[Atlantis/Capital]"
    args, _ = decode_arguments(body_of([msgpack.ExtType(DATETIME, text)]))
    assert args == [datetime(2026, 7, 1, 10, tzinfo=UTC)]
    assert args[0].utcoffset() == timedelta(hours=2)


def test_other_rules_of_a_zone_leave_the_moment_right() -> None:
    """Where the zone has other rules than the sender's the datetime arrives in that zone, as the same moment."""
    text = b"2026-07-01T12:00:00+05:00[Europe/Berlin]"
    args, _ = decode_arguments(body_of([msgpack.ExtType(DATETIME, text)]))
    assert args[0].timestamp() == datetime(2026, 7, 1, 7, tzinfo=UTC).timestamp()
    assert args[0].tzinfo is BERLIN


@pytest.mark.parametrize(
    ("value", "received"),
    [
        ((1, (2, 3)), [1, [2, 3]]),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        (collections.OrderedDict(a=1), {"a": 1}),
        (Point(1, 2), [1, 2]),
        (enum.IntEnum("Level", "LOW").LOW, 1),  # type: ignore[attr-defined]
        (enum.StrEnum("Name", "LOW").LOW, "low"),  # type: ignore[attr-defined]
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_msgpack_has_no_type_for_arrives_as_the_nearest(value: Any, received: Any) -> None:
    """Tuples arrive as lists, buffers as bytes, subclasses as what they derive from."""
    arrived = through_a_message(value)
    assert arrived == received
    assert type(arrived) is type(received)


def test_the_key_of_a_dict_may_be_a_tuple() -> None:
    """A dict whose keys are tuples can be sent, so it arrives, with its keys as tuples."""
    value = {(1, "a"): [1], (2, ("b",)): [2]}
    assert through_a_message(value) == value


def test_no_arguments_at_all_arrive_as_none_at_all() -> None:
    """A task without arguments has an empty list and an empty dict of them."""
    assert decode_arguments(encode_arguments([], {}, LIMIT)) == ([], {})


def test_named_and_positional_arguments_stay_apart() -> None:
    """Arguments arrive in their order, and the named ones under their names."""
    body = encode_arguments((1, "two"), {"three": 3, "größe": 4, "self": 5}, LIMIT)
    assert decode_arguments(body) == ([1, "two"], {"three": 3, "größe": 4, "self": 5})


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (object(), "object"),
        (1 + 2j, "complex"),
        (range(3), "range"),
        (int, "type"),
        (test_no_arguments_at_all_arrive_as_none_at_all, "function"),
        (iter([]), "list_iterator"),
        (ValueError("no"), "ValueError"),
        (Path("file"), "Path"),
        (Order(1), f"{__name__}.Order"),
        (Colour.RED, f"{__name__}.Colour"),
        (SimpleNamespace(a=1), "types.SimpleNamespace"),
        (collections.deque([1]), "collections.deque"),
        (MappingProxyType({"a": 1}), "mappingproxy"),
        (2**64, "whole number of more than 64 bits"),
        (-(2**63) - 1, "whole number of more than 64 bits"),
        ("\ud800", "text that is no valid Unicode"),
        (datetime(2026, 1, 1), "datetime without a time zone"),
        (time(12, tzinfo=BERLIN), "time in a zone whose offset depends on the date"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isprintable() else type(value).__name__,
)
def test_a_message_says_what_it_cannot_carry_and_which_argument_it_is(value: Any, kind: str) -> None:
    """Each kind of value that cannot be carried is named, with the number or the name of its argument."""
    positional, named = refusal(1, value), refusal(1, order=value)
    assert positional.startswith("argument 2 is a")
    assert named.startswith("argument 'order' is a")
    assert kind in positional
    assert kind in named


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ([1, object()], "argument 1[1] is a"),
        ((1, (2, object())), "argument 1[1][1] is a"),
        ({"lines": [{"price": object()}]}, "argument 1['lines'][0]['price'] is a"),
        ({3: object()}, "argument 1[3] is a"),
        ({"a": {object}}, "a member of argument 1['a'] is a"),
        ([frozenset({(1, object)})], "a member of argument 1[0][1] is a"),
        ({object: 1}, "a key of argument 1 is a"),
        ([{2**64: 1}], "a key of argument 1[0] is a"),
        ([[datetime(2026, 1, 1)]], "argument 1[0][0] is a datetime without a time zone"),
        (["a", {"b": "\udcff"}], "argument 1[1]['b'] is a text"),
    ],
)
def test_the_path_leads_to_what_cannot_be_carried(value: Any, path: str) -> None:
    """However deep it is, the message tells where in the argument the culprit stands."""
    assert refusal(value).startswith(path)


def test_a_datetime_without_a_zone_comes_with_advice() -> None:
    """The message about a naive datetime tells how to make an aware one."""
    assert "datetime.now(UTC)" in refusal(when=datetime(2026, 1, 1))


def test_the_first_of_several_culprits_is_named() -> None:
    """With several arguments that cannot be carried the first one is named."""
    assert refusal(1, [object()], object(), order=object()).startswith("argument 2[0] is")


def test_a_list_that_holds_itself_is_refused() -> None:
    """A list or dict that holds itself is refused, with a message that names the argument and is not endless."""
    own_member: list[Any] = [1]
    own_member.append(own_member)
    own_value: dict[str, Any] = {}
    own_value["me"] = own_value
    for message in (refusal(own_member), refusal(own_value)):
        assert message.startswith("argument 1")
        assert "holds itself" in message
        assert len(message) < 500


def test_what_is_nested_too_deeply_is_refused() -> None:
    """A value of many thousands of levels is refused like one that holds itself."""
    assert "nested too deeply" in refusal(nested(5_000, list))


def test_a_name_that_is_no_valid_unicode_is_refused() -> None:
    """A named argument whose very name cannot be encoded is refused."""
    assert refusal(**{"\ud800": 1})


@pytest.mark.parametrize("extra", [0, 1])
def test_the_limit_is_the_size_of_the_encoded_arguments(extra: int) -> None:
    """Arguments of exactly the limit pass; one byte more is refused."""
    size = len(encode_arguments(["x" * 1000], {}, LIMIT))
    value = "x" * (1000 + extra)
    if extra:
        with pytest.raises(MessageTooLargeError):
            encode_arguments([value], {}, size)
    else:
        assert len(encode_arguments([value], {}, size)) == size


def test_arguments_that_are_too_large_are_told_with_the_figures() -> None:
    """The message about too large arguments holds size, limit and what to do."""
    with pytest.raises(MessageTooLargeError, match=r"1,048,596 bytes.*1,048,576 bytes.*MAX_ARGUMENTS_BYTES"):
        encode_arguments(["x" * LIMIT], {}, LIMIT)


HOSTILE = {
    "empty": b"",
    "text": b"args",
    "not msgpack": b"\xc1",
    "json": b'{"args": [], "kwargs": {}}',
    "nil": msgpack.packb(None),
    "number": msgpack.packb(1),
    "list": msgpack.packb([[], {}]),
    "empty dict": msgpack.packb({}),
    "neither args nor kwargs": msgpack.packb({"arguments": []}),
    "args text": msgpack.packb({"args": "ab", "kwargs": {}}),
    "args dict": msgpack.packb({"args": {}, "kwargs": {}}),
    "kwargs list": msgpack.packb({"args": [], "kwargs": []}),
    "kwargs text": msgpack.packb({"args": [], "kwargs": "ab"}),
    "kwargs with a number for a name": msgpack.packb({"args": [], "kwargs": {1: 2}}),
    "kwargs with bytes for a name": msgpack.packb({"args": [], "kwargs": {b"a": 2}}),
    "kwargs with nil for a name": msgpack.packb({"args": [], "kwargs": {None: 2}}),
    "bytes for keys": msgpack.packb({b"args": [], b"kwargs": {}}),
    "something follows": body_of([]) + b"\x00",
    "a list of 4 billion": b"\x82\xa4args\xdd\xff\xff\xff\xff",
    "a dict of 4 billion": b"\xdf\xff\xff\xff\xff",
    "a text of 4 GB": b"\x82\xa4args\xdb\xff\xff\xff\xffabc",
    "text that is no UTF-8": b"\x82\xa4args\x91\xa2\xff\xfe\xa6kwargs\x80",
    "a surrogate in UTF-8": b"\x82\xa4args\x91\xa3\xed\xa0\x80\xa6kwargs\x80",
    "a dict for a key": b"\x81\x80\x01",
    "100,000 lists deep": b"\x91" * 100_000,
    "100,000 dicts deep": b"\x81\xa1a" * 100_000,
    "900 lists deep": b"\x82\xa4args\x91" + b"\x91" * 900 + b"\x90\xa6kwargs\x80",
    "900 dicts deep": b"\x81\xa6kwargs" + b"\x81\xa1a" * 900 + b"\x80",
    "a moment after the year 9999": b"\x81\xa4args\x91\xc7\x0c\xff" + b"\0" * 4 + b"\x7f" + b"\xff" * 7,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_body_that_is_no_arguments_is_refused(kind: str) -> None:
    """Whatever else a body is, it is refused with MessageRefusedError."""
    with pytest.raises(MessageRefusedError):
        decode_arguments(HOSTILE[kind])


def test_why_a_body_is_refused_is_told_where_msgpack_says_nothing() -> None:
    """Some of its errors have no text: their names are one."""
    with pytest.raises(MessageRefusedError, match=r"not valid msgpack: FormatError$"):
        decode_arguments(b"\xc1")


def test_a_body_that_is_cut_off_anywhere_is_refused() -> None:
    """No beginning of a body passes for a whole one."""
    body = encode_arguments([1, Decimal("1.5"), {1, 2}, [None] * 20], {"a": datetime.now(UTC)}, LIMIT)
    for length in range(len(body)):
        with pytest.raises(MessageRefusedError):
            decode_arguments(body[:length])


@pytest.mark.parametrize("code", [0, 9, 50, 127])
def test_an_unknown_extension_is_refused(code: int) -> None:
    """An extension type that limetask does not have is refused, by its number."""
    with pytest.raises(MessageRefusedError, match=str(code)):
        decode_arguments(body_of([msgpack.ExtType(code, b"data")]))


@pytest.mark.parametrize(
    ("code", "payload"),
    [
        *((code, b"\xff\xfe") for code in range(1, 9)),
        *((code, b"") for code in range(1, 9)),
        (DATETIME, b"yesterday"),
        (DATETIME, b"2026-13-01T00:00:00+00:00"),
        (DATETIME, b"2026-01-01T00:00:00+99:00"),
        (DATE, b"2026-02-30"),
        (TIME, b"25:00"),
        (TIMEDELTA, msgpack.packb([1, 2])),
        (TIMEDELTA, msgpack.packb([1, 2, 3, 4])),
        (TIMEDELTA, msgpack.packb(["1", 2, 3])),
        (TIMEDELTA, msgpack.packb([2**63, 0, 0])),
        (TIMEDELTA, msgpack.packb([1e300, 0, 0])),
        (TIMEDELTA, msgpack.packb([float("nan"), 0, 0])),
        (TIMEDELTA, msgpack.packb(None)),
        (DECIMAL, b"1,5"),
        (DECIMAL, b"0E+99999999999999999999"),
        (UUID_, b"short"),
        (UUID_, b"seventeen bytes!!"),
        (SET, msgpack.packb(3)),
        (SET, msgpack.packb([{}])),
        (SET, msgpack.packb([[{}]])),
        (SET, msgpack.packb([msgpack.ExtType(SET, msgpack.packb([]))])),
        (SET, msgpack.packb([1]) + b"\x00"),
        (FROZENSET, msgpack.packb(None)),
        (FROZENSET, msgpack.packb([{}])),
    ],
)
def test_an_extension_with_a_wrong_payload_is_refused(code: int, payload: bytes) -> None:
    """An extension whose payload is not what it should be is refused."""
    with pytest.raises(MessageRefusedError):
        decode_arguments(body_of([msgpack.ExtType(code, payload)]))


@pytest.mark.parametrize(
    "zone", ["", "[", "]", ".", "..", "/", "../../etc/passwd", "/etc/passwd", "Europe", "posix", "\x00", "a" * 5000]
)
def test_a_strange_zone_does_no_harm(zone: str) -> None:
    """Whatever stands for the zone's name, the moment arrives or the message is refused."""
    text = f"2026-07-01T12:00:00+02:00[{zone}]"
    try:
        args, _ = decode_arguments(body_of([msgpack.ExtType(DATETIME, text.encode())]))
    except MessageRefusedError:
        return
    assert args == [datetime(2026, 7, 1, 10, tzinfo=UTC)]


@pytest.mark.parametrize("folder", ["Europe", "America"])
def test_a_folder_of_the_zone_database_is_no_zone(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the zones come from the package tzdata, the name of a folder is an unknown zone like any other."""
    for package in ("tzdata", "tzdata/zoneinfo", f"tzdata/zoneinfo/{folder}"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    for name in [name for name in sys.modules if name.partition(".")[0] == "tzdata"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    text = f"2026-07-01T12:00:00+02:00[{folder}]"
    try:
        args, _ = decode_arguments(body_of([msgpack.ExtType(DATETIME, text.encode())]))
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "tzdata"]:
            del sys.modules[name]
    assert args == [datetime(2026, 7, 1, 10, tzinfo=UTC)]


@pytest.mark.parametrize("code", [TIMEDELTA, SET, FROZENSET])
@pytest.mark.parametrize("depth", [1_000, 10_000])
def test_extensions_nested_deeply_do_not_kill_the_process(code: int, depth: int) -> None:
    """A body of extensions in extensions, however deep, is refused or read, and the process lives on."""
    program = f"""
        import msgpack
        from limetask.arguments import decode_arguments
        from limetask.errors import MessageRefusedError

        payload = msgpack.packb([])
        for _ in range({depth}):
            payload = msgpack.packb([msgpack.ExtType({code}, payload)])
        try:
            decode_arguments(msgpack.packb({{"args": [msgpack.ExtType({code}, payload)], "kwargs": {{}}}}))
        except MessageRefusedError:
            pass
        print("alive")
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "alive\n"), ran.stderr


def test_what_can_be_sent_can_be_received() -> None:
    """Sets nested however deep are either refused when they are sent or arrive: never sent and then refused."""
    program = """
        from datetime import timedelta
        from limetask.arguments import decode_arguments, encode_arguments
        from limetask.errors import ArgumentsError, MessageRefusedError

        def check(value, depth):
            for _ in range(depth):
                value = frozenset({value})
            try:
                body = encode_arguments([value], {}, 1_000_000)
            except ArgumentsError:
                return
            try:
                decode_arguments(body)
            except MessageRefusedError as exc:
                print(depth, exc)

        for depth in (*range(40), 100, 300, 1_000, 10_000):
            check(frozenset(), depth)
            check(timedelta(1), depth)
        print("alive")
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "alive\n"), ran.stderr


@pytest.mark.parametrize("code", [SET, FROZENSET, TIMEDELTA])
@pytest.mark.parametrize("innermost", [[{}], [{(): 1}], [msgpack.ExtType(TIMEDELTA, msgpack.packb([{}]))]], ids=str)
def test_a_small_body_is_little_work(code: int, innermost: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a body, however it is nested, is a few passes over its parts, and not twice as many for each level."""
    depth = 12
    parts = msgpack.packb(innermost)
    for _ in range(depth):
        parts = msgpack.packb([msgpack.ExtType(code, parts)])
    body = msgpack.packb({"args": [msgpack.ExtType(code, parts)], "kwargs": {}})
    unpackb = msgpack.unpackb
    passes = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal passes
        passes += 1
        return unpackb(*args, **kwargs)

    monkeypatch.setattr(msgpack, "unpackb", counted)
    with contextlib.suppress(MessageRefusedError):
        decode_arguments(body)
    assert passes <= 4 * (depth + 3)


def mutated(body: bytes, chance: random.Random) -> bytes:
    changed = bytearray(body)
    for _ in range(chance.randint(1, 6)):
        position = chance.randrange(len(changed)) if changed else 0
        match chance.randrange(5):
            case 0:
                del changed[position:]
            case 1:
                changed.insert(position, chance.randrange(256))
            case _ if changed:
                changed[position] = chance.randrange(256)
    return bytes(changed)


@pytest.mark.parametrize("seed", range(5))
def test_a_damaged_body_is_read_or_refused(seed: int) -> None:
    """Of thousands of bodies with random damage each is read or refused; no other exception comes through."""
    chance = random.Random(seed)
    body = encode_arguments(
        [1, "x", datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN), Decimal("1.5E+3"), uuid.UUID(int=7), {1, (2, (3,))}],
        {"a": [frozenset({"b"}), date(2026, 1, 1), time(1, 2), timedelta(3)], "c": {1: b"d", "e": [None, True, 1.5]}},
        LIMIT,
    )
    outcomes = collections.Counter[str]()
    for _ in range(2_000):
        try:
            args, kwargs = decode_arguments(mutated(body, chance))
        except MessageRefusedError:
            outcomes["refused"] += 1
        else:
            assert isinstance(args, list)
            assert all(isinstance(name, str) for name in kwargs)
            outcomes["read"] += 1
    assert outcomes["refused"] > 100
    assert outcomes["read"] > 10
