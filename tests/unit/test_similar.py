"""Which known task is offered for an unknown one: a slip of the pen, and never merely a neighbour."""

from __future__ import annotations

import pytest

from limetask_worker.similar import similar_name

KNOWN = [
    "my_package.tasks.delete_order",
    "my_package.tasks.refund",
    "my_package.tasks.send_invoice",
    "my_package.tasks.update_customer",
    "my_package.reports.refund_all",
]


@pytest.mark.parametrize(
    ("unknown", "meant"),
    [
        ("my_package.tasks.delete_oder", "my_package.tasks.delete_order"),
        ("my_package.tasks.delete_orders", "my_package.tasks.delete_order"),
        ("my_package.tasks.deleteorder", "my_package.tasks.delete_order"),
        ("my_package.tasks.delete-order", "my_package.tasks.delete_order"),
        ("my_package.tasks.Refund", "my_package.tasks.refund"),
        ("my_package.tasks.refnud", "my_package.tasks.refund"),
        ("my_package.task.refund", "my_package.tasks.refund"),
        ("mypackage.tasks.refund", "my_package.tasks.refund"),
        ("my_pakage.taks.send_invoice", "my_package.tasks.send_invoice"),
        ("tasks.send_invoice", "my_package.tasks.send_invoice"),
        ("my_package.send_invoice", "my_package.tasks.send_invoice"),
        ("my_package.tasks.send_invoice_", "my_package.tasks.send_invoice"),
        ("my_package.tasks.send_invoices_now", "my_package.tasks.send_invoice"),
        ("my_package.tasks.create_order", None),
        ("my_package.tasks.delete_customer", None),
        ("my_package.tasks.update_order", None),
        ("my_package.tasks.send_reminder", None),
        ("my_package.tasks.order", None),
        ("my_package.tasks.archive", None),
        ("my_package.tasks.x", None),
        ("other.jobs.refund", None),
        ("x.y", None),
    ],
)
def test_only_what_is_alike_is_offered(unknown: str, meant: str | None) -> None:
    """Long names in common make no two tasks alike: what differs is compared."""
    assert similar_name(unknown, KNOWN) == meant


def test_nothing_is_like_anything_where_nothing_is_known() -> None:
    """A worker without tasks offers none."""
    assert similar_name("my_package.tasks.refund", []) is None


def test_the_most_alike_is_offered() -> None:
    """Of several that are alike it is the nearest."""
    assert similar_name("a.b.charge_twic", ["a.b.charge_thrice", "a.b.charge_twice"]) == "a.b.charge_twice"
