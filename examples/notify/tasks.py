"""A task that fails for some applications, as the nightly ones do."""

from __future__ import annotations

from limetask import Application, TaskFailure, task

_WITHOUT_A_PRICE_LIST = ("alpine-tools",)


@task
def import_prices(app: Application, day: str) -> str:
    """Import an application's price list; fails if there is none."""
    if app.identifier in _WITHOUT_A_PRICE_LIST:
        raise TaskFailure(f"there is no price list for {day}")
    return f"imported the price list for {day}"
