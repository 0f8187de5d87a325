"""Values of other libraries: as a result they become plain ones, as an argument they are refused with a way out."""

from __future__ import annotations

import collections
import dataclasses
import json
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from enum import Enum, IntEnum
from fractions import Fraction
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

import numpy as np
import pydantic
import pytest

from limetask import ArgumentsError, ResultError
from limetask.arguments import encode_arguments
from limetask.foreign import type_name
from limetask.results import encode_result

LIMIT = 1024**2


class Colour(Enum):
    RED = "red"
    UNKNOWN = float("nan")
    SET = frozenset({1})


class Size(IntEnum):
    BIG = 3


class Deal(pydantic.BaseModel):
    number: int
    value: float
    signed: date
    colour: Colour = Colour.RED


class Deals(pydantic.RootModel[list[Deal]]):
    pass


class Odd(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    thing: object


class OldModel:
    """As models of Pydantic 1 are."""

    __fields__ = ("number",)

    def dict(self) -> dict[str, Any]:
        return {}


@dataclasses.dataclass
class Totals:
    by_month: Any
    _hidden: int = 0


class Timestamp(datetime):
    """A datetime of a library's own, as those of pandas and pendulum are."""


class NotATime(datetime):
    """pandas' NaT: a datetime that is not equal to itself."""

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = datetime.__hash__


def result_of(value: Any) -> Any:
    return json.loads(encode_result(value, LIMIT))


DEAL = Deal(number=1, value=2.5, signed=date(2026, 1, 2))
DEAL_AS_JSON = {"number": 1, "value": 2.5, "signed": "2026-01-02", "colour": "red"}


@pytest.mark.parametrize(
    ("value", "received"),
    [
        (np.float64(1.1), 1.1),
        (np.float32(0.5), 0.5),
        (np.longdouble(1.5), 1.5),
        (np.int64(2**62), 2**62),
        (np.uint8(200), 200),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.array(3), 3),
        (np.arange(3), [0, 1, 2]),
        (np.ones((2, 2)), [[1.0, 1.0], [1.0, 1.0]]),
        (np.arange(6).reshape(2, 3)[:, ::2], [[0, 2], [3, 5]]),
        (np.array([1.5], dtype=np.longdouble), [1.5]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([1, "a", None, np.float32(0.5)], dtype=object), [1, "a", None, 0.5]),
        ({"mean": np.float64(2.0), "rows": [np.int32(1)]}, {"mean": 2.0, "rows": [1]}),
        ({np.int64(3): 1, np.float64(0.5): 2, np.bool_(True): 3}, {"3": 1, "0.5": 2, "true": 3}),
        ([({"a": {np.int64(3): (np.int8(1),)}},)], [[{"a": {"3": [1]}}]]),
        (collections.Counter(np.array([7, 7, 8])), {"7": 2, "8": 1}),
        (Totals({np.int64(1): np.float64(2)}), {"by_month": {"1": 2.0}}),
        (DEAL, DEAL_AS_JSON),
        ({"deals": [DEAL]}, {"deals": [DEAL_AS_JSON]}),
        (Deals([DEAL]), [DEAL_AS_JSON]),
        (Colour.RED, "red"),
        (Size.BIG, 3),
        (Timestamp(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        ({Timestamp(2026, 1, 2): 1}, {"2026-01-02T00:00:00": 1}),
        (PurePosixPath("/a/b"), "/a/b"),
        (MappingProxyType({np.int64(1): np.int64(2)}), {"1": 2}),
        (collections.ChainMap({"a": 1}), {"a": 1}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_result_becomes_what_json_has_for_it(value: Any, received: Any) -> None:
    """What can be read in one way only is no reason to fail after the body has run."""
    assert result_of(value) == received


@pytest.mark.parametrize(
    "value",
    [
        np.float64("nan"),
        np.float32("inf"),
        np.array([1.0, np.nan]),
        np.array([[1, float("inf")]], dtype=object),
        {"a": [np.float64("nan")]},
        Colour.UNKNOWN,
        [Colour.UNKNOWN],
        DEAL.model_copy(update={"value": float("nan")}),
        MappingProxyType({"a": float("nan")}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_number_is_never_a_null(value: Any) -> None:
    """A NaN or an infinity is refused wherever it comes from."""
    with pytest.raises(ResultError, match="a NaN or an infinity"):
        encode_result(value, LIMIT)


@pytest.mark.parametrize(
    ("value", "kind", "way_out"),
    [
        (np.complex128(1), "numpy.complex128", "[x.real, x.imag]"),
        (np.datetime64("2026-01-01"), "numpy.datetime64", "str(x)"),
        (np.bytes_(b"a"), "numpy.bytes_", "x.decode()"),
        (np.array(["2026"], dtype="M8[D]"), "numpy.ndarray", "x.tolist()"),
        (np.zeros(2, dtype=[("a", int)]), "numpy.ndarray", "x.tolist()"),
        (Colour.SET, "frozenset", "sorted(x)"),
        ({1, 2}, "set", "sorted(x)"),
        (timedelta(1), "datetime.timedelta", "x.total_seconds()"),
        (b"a", "bytes", "x.decode(), or base64.b64encode(x).decode()"),
        (range(3), "range", "list(x)"),
        ({"a": 1}.keys(), "dict_keys", "list(x)"),
        (Fraction(1, 3), "fractions.Fraction", "float(x)"),
        (OldModel(), f"{__name__}.OldModel", "x.dict()"),
        (ValueError("no"), "ValueError", "str(x)"),
        (Deal, "pydantic._internal._model_construction.ModelMetaclass", "x.__name__"),
        (NotATime(2026, 1, 1), f"{__name__}.NotATime", "str(x)"),
        (object(), "object", "its text, its key or a dict"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_result_that_could_be_read_in_several_ways_is_refused(value: Any, kind: str, way_out: str) -> None:
    """The message names the type and an expression that makes something plain of it."""
    for result in (value, [{"deep": value}]):
        with pytest.raises(ResultError) as caught:
            encode_result(result, LIMIT)
        assert str(caught.value).endswith(f"it holds a value of type {kind}: convert it, such as with {way_out}")


def test_an_error_of_the_values_own_code_is_told() -> None:
    """A model that cannot be made JSON says why, and does not take the worker's code down."""
    with pytest.raises(ResultError, match=r"Odd \(PydanticSerializationError: Unable to serialize.*x\.model_dump\(\)"):
        encode_result(Odd(thing=object()), LIMIT)


def test_a_strange_key_comes_with_a_way_out() -> None:
    """A key that JSON cannot have is named, not numpy's beside it, which can be made plain."""
    for strange, way_out in (((1, 2), "str(x)"), (b"a", "x.decode()")):
        with pytest.raises(ResultError) as caught:
            encode_result({np.int64(1): 0, "a": [{strange: 1}]}, LIMIT)
        assert str(caught.value).endswith(
            f"a key is a value of type {type(strange).__name__}: convert it, such as with {way_out}"
        )


def test_what_holds_itself_under_a_strange_key_is_refused() -> None:
    """A loop ends with our error also where keys have to be looked at."""
    looped: dict[Any, Any] = {np.int64(1): 1}
    looped["a"] = looped
    with pytest.raises(ResultError, match="holds itself or is nested too deeply"):
        encode_result(looped, LIMIT)


def test_a_huge_array_is_refused_before_it_is_copied() -> None:
    """An array that no message could carry does not cost several times its memory first."""
    huge = np.zeros(100_000_000, dtype=np.bool_)  # lies in memory that is never touched
    tracemalloc.start()
    try:
        with pytest.raises(ResultError, match=r"numpy\.ndarray"):
            encode_result(huge, LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 10 * LIMIT
    finally:
        tracemalloc.stop()


def generated() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("value", "kind", "way_out"),
    [
        (Colour.RED, f"{__name__}.Colour", "x.value"),
        (DEAL, f"{__name__}.Deal", "x.model_dump()"),
        (OldModel(), f"{__name__}.OldModel", "x.dict()"),
        (Totals(1), f"{__name__}.Totals", "dataclasses.asdict(x)"),
        (np.float32(1), "numpy.float32", "float(x)"),
        (np.int64(1), "numpy.int64", "int(x)"),
        (np.bool_(True), "numpy.bool", "bool(x)"),
        (np.arange(3), "numpy.ndarray", "x.tolist()"),
        (np.array(3), "numpy.ndarray", "int(x)"),
        (PurePosixPath("a"), type_name(PurePosixPath()), "str(x)"),
        (collections.deque([1]), "collections.deque", "list(x)"),
        (generated(), "generator", "list(x)"),
        (MappingProxyType({"a": 1}), "mappingproxy", "dict(x)"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_an_argument_that_cannot_be_carried_comes_with_a_way_out(value: Any, kind: str, way_out: str) -> None:
    """The message names the argument, its type, and what to send in its place."""
    for args, kwargs, path in (((value,), {}, "argument 1"), ((), {"deal": [value]}, "argument 'deal'[0]")):
        with pytest.raises(ArgumentsError) as caught:
            encode_arguments(args, kwargs, LIMIT)
        assert str(caught.value) == (
            f"{path} is a value of type {kind}, which a task message cannot carry: "
            f"send a plain value, such as {way_out}"
        )
