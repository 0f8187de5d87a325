"""What the sections share, and what they look up apart from what the tasks say."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from crm import actions
from crm.application import CrmApplication
from crm.database import TABLES, read_rows

from lime_task import TaskStatus

from . import DemoError
from .events import Listener
from .screen import console

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Stage:
    """The events and the two applications."""

    events: Listener
    nordic_foods: CrmApplication
    alpine_tools: CrmApplication

    def follow(self, sent: TaskStatus) -> TaskStatus:
        """Follow a task as the CRM's web pages do, and show its event."""
        ended = actions.follow(sent.id, sent.app)
        if ended is None:
            raise DemoError("get_status does not find a task that was sent")
        self.show_event(ended)
        return ended

    def show_event(self, ended: TaskStatus) -> None:
        """Show the event of a task that has ended, which must say what its status says."""
        for event in self.events.events_of([ended]):
            milliseconds = event.seconds_after_sending * 1000
            console.print(f"event:  [cyan]{event.routing_key}[/]", soft_wrap=True)
            console.print(f"        [dim]{event.body['app']}, {milliseconds:.0f} ms after it was sent[/]")
            if (event.body["status"], event.body["result"]) != (ended.status, ended.result):
                raise DemoError(f"the event of task {ended.id} is not like its status: {event.body}")

    def snapshot(self) -> set[Row]:
        """Return every row of both databases: its application and its table, its id and its other columns."""
        return {
            (app.identifier, table, *row)
            for app in (self.nordic_foods, self.alpine_tools)
            for table in TABLES
            for row in app.database.execute(f"SELECT * FROM {table}")
        }

    def changed_since(self, before: set[Row]) -> set[Row]:
        """Return application, table and id of each row that is not as it was."""
        return {row[:3] for row in before ^ self.snapshot()}


def column(app: CrmApplication, table: str, name: str) -> dict[int, Any]:
    """Return a table's column by the rows' ids."""
    return dict(app.database.execute(f"SELECT id, {name} FROM {table}"))


def open_deals_of_others(app: CrmApplication, coworker_id: int, count: int) -> list[int]:
    """Return the ids of some open deals that are not this coworker's."""
    query = "SELECT id FROM deal WHERE stage = 'open' AND sales_representative != ? ORDER BY id LIMIT ?"
    return [row["id"] for row in app.database.execute(query, (coworker_id, count))]


def described(identifier: str, company_id: int) -> dict[str, str]:
    """Return a company's description as it should be, from the data files."""
    company = next(row for row in read_rows(identifier, "company") if row["id"] == str(company_id))
    return {"description": f"{company['name']}, {company['city']}, {company['country']}"}


def won_values(identifier: str) -> Counter[int]:
    """Return the sum of each company's won deals, from the data files."""
    won: Counter[int] = Counter()
    for deal in read_rows(identifier, "deal"):
        if deal["stage"] == "won":
            won[int(deal["company"])] += int(deal["value"])
    return won
