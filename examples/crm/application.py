"""The CRM's applications: one for each customer, each with a database of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from lime_task import UnknownApplicationError

from .database import open_database

IDENTIFIERS = ("alpine-tools", "nordic-foods")


@dataclass(frozen=True)
class CrmApplication:
    """One customer's CRM. Its `identifier` is all that limetask wants to know of it."""

    identifier: str
    database: sqlite3.Connection


@contextmanager
def open_application(identifier: str) -> Iterator[CrmApplication]:
    """Give the application of that name, with its database open until the end of the `with` block.

    This is the CRM's application factory: with `LIMETASK_APPLICATION_FACTORY=crm.application:open_application` each
    task gets an application of its own, which is closed when the task has ended. Raises UnknownApplicationError for
    any other name, so that a task sent for it is refused and kept with the dead letters.
    """
    if identifier not in IDENTIFIERS:
        raise UnknownApplicationError(f"the CRM has no application {identifier!r}")
    with closing(open_database(identifier)) as database:
        yield CrmApplication(identifier, database)
