"""What is made at its first use, without a lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Once(Generic[T]):
    """Makes something at its first use. Thread-safe without a lock, which a signal handler would wait for in vain.

    Should two threads, or a thread and its signal handler, make it at the same time, one of both is discarded.
    """

    def __init__(self, make: Callable[[], T], discard: Callable[[T], object]) -> None:
        self._make = make
        self._discard = discard
        self._made: dict[None, T] = {}

    def get(self) -> T:
        """Return it; raises what making it raises."""
        try:
            return self._made[None]
        except KeyError:
            made = self._make()
        kept = self._made.setdefault(None, made)
        if kept is not made:
            self._discard(made)
        return kept

    def take(self) -> T | None:
        """Return it and forget it; None if it has not been made."""
        return self._made.pop(None, None)
