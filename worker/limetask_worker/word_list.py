"""Command line options that are lists of words."""

from __future__ import annotations

from collections.abc import Sequence

import click


class WordList(click.ParamType[tuple[str, ...]]):
    """Words joined by commas, each out of a given set."""

    name = "words"

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words

    def convert(
        self, value: str | tuple[str, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        given = {word.strip() for word in value.split(",")}
        for word in sorted(given - set(self._words)):
            self.fail(f"{word!r} is none of {', '.join(self._words)}", param, ctx)
        return tuple(word for word in self._words if word in given)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        return ",".join(self._words)
