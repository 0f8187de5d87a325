"""Which known task was probably meant by an unknown name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import SequenceMatcher
from itertools import takewhile

# A letter that is missing, too many, wrong or swapped in a word of some length stays above it; another word does not.
_ALIKE = 0.7


def similar_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like `name`, None if none is.

    Names of one package have most of their words in common: only those that differ are compared.
    """
    rated = [(_likeness(name, one), one) for one in sorted(known)]
    best = max(rated, key=lambda pair: pair[0], default=(0.0, ""))
    return best[1] if best[0] >= _ALIKE else None


def _likeness(name: str, other: str) -> float:
    words, other_words = _words(name), _words(other)
    same = _count_same(words, other_words)
    words, other_words = words[same:], other_words[same:]
    same = _count_same(words[::-1], other_words[::-1])
    words, other_words = words[: len(words) - same], other_words[: len(other_words) - same]
    if words and other_words:
        return _ratio("".join(words), "".join(other_words))
    # One has all words of the other, and more: it is another function, or the same one with more in front.
    return _ratio(_function(name), _function(other))


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W_]+", name.casefold())


def _count_same(words: list[str], other_words: list[str]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(words, other_words, strict=False)))


def _function(name: str) -> str:
    return name.casefold().rpartition(".")[2]


def _ratio(text: str, other: str) -> float:
    return SequenceMatcher(None, text, other, autojunk=False).ratio()
