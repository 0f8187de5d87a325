"""Tasks on companies and deals. The first argument of each is the application that it was sent for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lime_task import TaskFailure, task

from ..application import CrmApplication

_TOP_RATING_FROM = 100_000


@task
def get_lime_company(
    app: CrmApplication,
    id: int,
    props: Sequence[str] = ("name", "city", "country"),
) -> dict[str, str]:
    """Describe a company by some of its properties."""
    company = _get_company_object(app, id)
    description = _concat_description(company, props)

    return dict(description=description)


@task
def update_sales_representative(app: CrmApplication, deal_ids: Sequence[int], coworker_id: int) -> str:
    """Make a coworker the sales representative of these deals: of all of them, or of none if something is wrong."""
    _require_coworker(app, coworker_id)
    changes = [(coworker_id, deal_id) for deal_id in deal_ids]
    with app.database:
        changed = app.database.executemany("UPDATE deal SET sales_representative = ? WHERE id = ?", changes).rowcount
        if changed != len(changes):
            # Raised within the block, so that the database takes the changes back.
            raise TaskFailure(f"{app.identifier} has only {changed} of these {len(changes)} deals: none was changed")
    return f"updated the sales representative of {changed} deal entities to coworker with id {coworker_id}"


@task(acks_late=True)
def recalculate_revenue(app: CrmApplication) -> str:
    """Set the revenue of every company to the sum of its won deals.

    Late ack: if the worker dies halfway, the task is run again. It may be, because it is idempotent: it sets each
    revenue instead of adding to it, so running it twice leaves what running it once does.
    """
    with app.database:
        changed = app.database.execute(
            """
            UPDATE company SET revenue =
                (SELECT COALESCE(SUM(value), 0) FROM deal WHERE deal.company = company.id AND stage = 'won')
            """
        ).rowcount
    return f"recalculated the revenue of {changed} company entities"


@task(qos="background")
def rate_company(app: CrmApplication, company_id: int) -> str:
    """Rate a company by its won deals: A, B or C.

    Background: thousands of these in a night must not keep a person's task waiting, so they queue up elsewhere.
    """
    _get_company_object(app, company_id)
    rating = _rating(_won_value(app, company_id))
    with app.database:
        app.database.execute("UPDATE company SET rating = ? WHERE id = ?", (rating, company_id))
    return f"rated company with id {company_id} as {rating}"


def _get_company_object(app: CrmApplication, company_id: int) -> dict[str, Any]:
    row = app.database.execute("SELECT * FROM company WHERE id = ?", (company_id,)).fetchone()
    if row is None:
        raise TaskFailure(f"{app.identifier} has no company {company_id}")
    return dict(row)


def _concat_description(company: dict[str, Any], props: Sequence[str]) -> str:
    return ", ".join(str(company[prop]) for prop in props)


def _require_coworker(app: CrmApplication, coworker_id: int) -> None:
    query = "SELECT id FROM coworker WHERE id = ?"
    if app.database.execute(query, (coworker_id,)).fetchone() is None:
        raise TaskFailure(f"{app.identifier} has no coworker {coworker_id}")


def _won_value(app: CrmApplication, company_id: int) -> int:
    query = "SELECT COALESCE(SUM(value), 0) FROM deal WHERE company = ? AND stage = 'won'"
    return int(app.database.execute(query, (company_id,)).fetchone()[0])


def _rating(won_value: int) -> str:
    if won_value >= _TOP_RATING_FROM:
        return "A"
    return "B" if won_value else "C"
