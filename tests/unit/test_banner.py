"""The banner: what a worker says of itself, without its passwords."""

from __future__ import annotations

from typing import Any

import pytest

from limetask import Settings
from limetask_worker.banner import banner_facts, show_banner
from limetask_worker.control import ChildOptions
from limetask_worker.plan import Plan

SETTINGS = Settings(
    broker_url="amqp://shop:s3cret@broker:5673/orders",
    store_url="postgresql://shop:s3cret@database/status",
    namespace="shop.eu",
)
OPTIONS = ChildOptions("", ("my_package",), ("asap", "default"), slots=4)


def shown(capsys: pytest.CaptureFixture[str], plan: Plan, facts: dict[str, Any], settings: Settings = SETTINGS) -> str:
    show_banner(settings, plan, facts, "1.2.3")
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_it_says_what_is_done_and_with_what(capsys: pytest.CaptureFixture[str]) -> None:
    """The banner shows version, services, namespace, queues, processes and tasks."""
    text = shown(capsys, Plan(2, True, OPTIONS), {"tasks": ["shop.add", "shop.remove"]})
    for part in [
        "limetask-worker 1.2.3",
        "broker:5673/orders",
        "database/status",
        "shop.eu",
        "asap, default",
        "2 with 4 slots each",
        "limetask.Application",
        "shop.add",
        "shop.remove",
    ]:
        assert part in text


def test_it_hides_passwords(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the broker's nor the store's password is shown, to people or to machines."""
    plan = Plan(1, True, OPTIONS)
    assert "s3cret" not in shown(capsys, plan, {})
    assert "s3cret" not in str(banner_facts(SETTINGS, plan, {}))


def test_it_says_only_what_is_so() -> None:
    """A recorder alone has no queues, a worker without a recorder no store."""
    assert set(banner_facts(SETTINGS, Plan(0, True, OPTIONS), {})) == {"broker", "namespace", "store"}
    assert "store" not in banner_facts(SETTINGS, Plan(1, False, OPTIONS), {})


@pytest.mark.parametrize(("number", "more"), [(20, None), (21, "... and 1 more"), (500, "... and 480 more")])
def test_many_tasks_are_shortened(capsys: pytest.CaptureFixture[str], number: int, more: str | None) -> None:
    """Of many tasks the first twenty are named, and it is told how many more there are."""
    text = shown(capsys, Plan(1, False, OPTIONS), {"tasks": [f"shop.task{index:03}" for index in range(number)]})
    assert text.count("shop.task") == 20
    assert (more in text) if more else ("more" not in text)


def test_markup_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """A task whose name looks like markup is shown by its name."""
    assert "shop.[bold]add[/bold]" in shown(capsys, Plan(1, False, OPTIONS), {"tasks": ["shop.[bold]add[/bold]"]})
