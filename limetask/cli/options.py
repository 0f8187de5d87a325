"""Kinds of options that several commands have."""

from __future__ import annotations

import re
from datetime import timedelta

import click

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


class Duration(click.ParamType[timedelta]):
    """A time span: a number and one of s, m, h, d, w."""

    name = "duration"

    def convert(self, value: str | timedelta, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the time span; fails with an example."""
        if isinstance(value, timedelta):
            return value
        given = _DURATION.fullmatch(value.strip())
        if given is None:
            self.fail(f"{value!r} is no time span such as 90s, 30m, 12h, 2d or 1w", param, ctx)
        try:
            return timedelta(seconds=float(given[1]) * _SECONDS[given[2]])
        except OverflowError:
            self.fail(f"{value!r} is too long", param, ctx)
