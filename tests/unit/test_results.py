"""Results as JSON: what every program can read, and what is refused."""

from __future__ import annotations

import collections
import math
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple

import pytest

from limetask import ResultError, Status
from limetask.records import (
    decode_completion,
    encode_completion,
)
from limetask.results import encode_result
from tests.unit.messages import LIMIT, NOW, SUCCESS, TASK_ID


@dataclass
class Order:
    number: int
    placed_at: datetime
    lines: list[Decimal]


@dataclass
class Parcel:
    contents: Any


class Labelled(NamedTuple):
    label: str
    contents: Any


class Line(NamedTuple):
    article: str
    price: Decimal


class Opaque:
    """Nothing that JSON knows."""


class Colour(Enum):
    RED = "red"


def result_of(value: Any) -> Any:
    """What an event's receiver gets for a result."""
    return decode_completion(encode_completion(SUCCESS, encode_result(value, LIMIT)).body).result


class TestResult:
    @pytest.mark.parametrize(
        ("value", "received"),
        [
            (None, None),
            (True, True),
            (2**53 + 1, 2**53 + 1),
            (2**64 - 1, 2**64 - 1),
            (-(2**63), -(2**63)),
            (1.5, 1.5),
            ("Grüße \N{GRINNING FACE} \x00", "Grüße \N{GRINNING FACE} \x00"),
            ((1, (2,)), [1, [2]]),
            (datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "2026-01-02T03:04:05.000006+00:00"),
            (datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=2))), "2026-01-02T00:00:00+02:00"),
            (date(2026, 1, 2), "2026-01-02"),
            (Decimal("1.10"), "1.10"),
            (Decimal("1E+5"), "1E+5"),
            (uuid.UUID(TASK_ID), TASK_ID),
            (Order(7, NOW, [Decimal("1.5")]), {"number": 7, "placed_at": NOW.isoformat(), "lines": ["1.5"]}),
            (Line("pen", Decimal("1.10")), ["pen", "1.10"]),
            ([Line("pen", Decimal("1.10"))], [["pen", "1.10"]]),
            ({1: "one", 2: {3: 4}}, {"1": "one", "2": {"3": 4}}),
            ({uuid.UUID(TASK_ID): 1, date(2026, 1, 2): 2}, {TASK_ID: 1, "2026-01-02": 2}),
            (Colour.RED, "red"),
            ({Colour.RED: Status.SUCCESS}, {"red": "SUCCESS"}),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_it_arrives_as_json_has_it(self, value: Any, received: Any) -> None:
        """Dates, decimals and UUIDs arrive as strings, dataclasses as objects, tuples as lists, keys as strings."""
        assert result_of(value) == received

    @pytest.mark.parametrize(
        ("value", "kind"),
        [
            ({1, 2}, "set"),
            ({"ids": [frozenset({1})]}, "frozenset"),
            (b"bytes", "bytes"),
            (bytearray(b"bytes"), "bytearray"),
            ([{"a": object()}], "object"),
            (1 + 2j, "complex"),
            (timedelta(1), "datetime.timedelta"),
            (range(3), "range"),
            ((number for number in [1]), "generator"),
            (ValueError("no"), "ValueError"),
            (collections.deque([1]), "collections.deque"),
            (int, "type"),
            (Opaque(), f"{__name__}.Opaque"),
            ({(1, 2): 3}, "tuple"),
            ([{b"a": 3}], "bytes"),
            ({Decimal(1): 3}, "decimal.Decimal"),
            (Parcel({(1, 2): 3}), "tuple"),
            ({"parcels": (Parcel({"a": {b"b": 3}}),)}, "bytes"),
            (Labelled("a", {Decimal(1): 3}), "decimal.Decimal"),
        ],
        ids=lambda value: value if isinstance(value, str) else type(value).__name__,
    )
    def test_what_json_cannot_express_is_refused_by_its_type(self, value: Any, kind: str) -> None:
        """A result that holds something that is not JSON is refused, and the message names its type."""
        with pytest.raises(ResultError) as caught:
            encode_result(value, LIMIT)
        assert f"a value of type {kind}: convert it, such as with " in str(caught.value)

    @pytest.mark.parametrize(
        "value", [2**64, -(2**63) - 1, [2**70], "\ud800", {"\udcff": 1}, ["\ud800"]], ids=lambda value: ascii(value)
    )
    def test_numbers_and_texts_beyond_json_are_refused(self, value: Any) -> None:
        """Whole numbers of more than 64 bits and texts that are no valid Unicode are refused."""
        with pytest.raises(ResultError, match="cannot be expressed as JSON"):
            encode_result(value, LIMIT)

    def test_a_result_that_holds_itself_is_refused(self) -> None:
        """A list that holds itself is refused."""
        value: list[Any] = []
        value.append(value)
        with pytest.raises(ResultError, match="cannot be expressed as JSON"):
            encode_result(value, LIMIT)

    @pytest.mark.parametrize("nothing", [math.nan, math.inf, -math.inf])
    def test_what_is_no_number_is_refused(self, nothing: float) -> None:
        """JSON has no NaN and no infinity, and a null in their place would not be true."""
        for result in (nothing, [1.0, {"a": nothing}], Parcel({"weight": nothing})):
            with pytest.raises(ResultError, match="NaN or an infinity"):
                encode_result(result, LIMIT)
        assert encode_result([None, 1.0], LIMIT) == b"[null,1.0]"

    def test_its_limit_is_exact(self) -> None:
        """A result of exactly the limit passes, one byte more is refused with the figures and advice."""
        assert len(encode_result("x" * 998, 1000)) == 1000
        with pytest.raises(ResultError, match=r"1,001 bytes.*limit is 1,000 bytes.*summary"):
            encode_result("x" * 999, 1000)


def test_a_result_is_encoded_once() -> None:
    """An encoded result is put into its event as it is, without decoding and encoding it again."""
    result = encode_result({"b": 1, "a": [1.0, Decimal("2.50")]}, LIMIT)
    assert b'"result":{"b":1,"a":[1.0,"2.50"]},' in encode_completion(SUCCESS, result).body
