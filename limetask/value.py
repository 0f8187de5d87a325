"""The decorator of what is made anew for each message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def value(kind: type[T]) -> type[T]:
    """Make a class a dataclass with slots, which type checkers take for frozen.

    One that is frozen when it runs too takes three times as long to make, since each of its fields is set by a call of
    `object.__setattr__`; several are made for each task.
    """
    return dataclass(slots=True, unsafe_hash=True)(kind)
