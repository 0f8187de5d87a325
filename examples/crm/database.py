"""The applications' databases: an SQLite file each, in the folder that CRM_DATABASES names."""

from __future__ import annotations

import csv
import os
import sqlite3
from contextlib import closing
from pathlib import Path

TABLES = ("coworker", "company", "deal")
"""In the order in which they can be filled: a deal refers to a company and to a coworker."""

_DATA_FOLDER = Path(__file__).parent / "data"

_SCHEMA = """
CREATE TABLE coworker (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL
);
CREATE TABLE company (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    city TEXT NOT NULL,
    country TEXT NOT NULL,
    revenue INTEGER,
    rating TEXT
);
CREATE TABLE deal (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    company INTEGER NOT NULL REFERENCES company (id),
    sales_representative INTEGER NOT NULL REFERENCES coworker (id),
    stage TEXT NOT NULL CHECK (stage IN ('open', 'won', 'lost')),
    value INTEGER NOT NULL
);
CREATE INDEX deal_company ON deal (company);
"""


def open_database(identifier: str) -> sqlite3.Connection:
    """Return an open connection to an application's database. Raises FileNotFoundError if there is none yet."""
    path = _database_path(identifier)
    if not path.exists():
        raise FileNotFoundError(f"there is no database {path}: make it with `python -m crm`")
    return _connect(path)


def create_database(identifier: str) -> None:
    """Make an application's database with empty tables, in place of an older one."""
    path = _database_path(identifier)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with closing(_connect(path)) as database:
        # Readers and one writer do not wait for each other then: many tasks use one database at a time.
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(_SCHEMA)


def read_rows(identifier: str, table: str) -> list[dict[str, str]]:
    """Return the rows that an application's table is to have in the beginning."""
    path = _DATA_FOLDER / identifier / f"{table}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def insert_rows(database: sqlite3.Connection, table: str, rows: list[dict[str, str]]) -> None:
    """Put rows into a table, all of them or none."""
    columns = list(rows[0])
    placeholders = ", ".join(f":{column}" for column in columns)
    with database:
        database.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({placeholders})", rows)


def _database_path(identifier: str) -> Path:
    folder = os.environ.get("CRM_DATABASES")
    if not folder:
        raise RuntimeError("CRM_DATABASES is not set: it names the folder of the applications' databases")
    return Path(folder) / f"{identifier}.db"


def _connect(path: Path) -> sqlite3.Connection:
    # IMMEDIATE: a task that is about to write waits for its turn, instead of failing halfway when another one writes.
    database = sqlite3.connect(path, timeout=30, isolation_level="IMMEDIATE")
    database.row_factory = sqlite3.Row
    database.execute("PRAGMA foreign_keys = ON")
    database.execute("PRAGMA synchronous = NORMAL")
    return database
