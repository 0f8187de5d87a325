"""Command line options that are times."""

from __future__ import annotations

import math

import click

_YEAR_SECONDS = 366 * 24 * 3600


class Seconds(click.FloatRange):
    """A number of seconds from 0 to a year. `click.FloatRange` alone takes "nan", which is in no range."""

    def __init__(self) -> None:
        super().__init__(0, _YEAR_SECONDS)

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds: float = super().convert(value, param, ctx)  # type: ignore[arg-type]
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds
