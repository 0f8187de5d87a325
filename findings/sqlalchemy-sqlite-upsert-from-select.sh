#!/usr/bin/env bash
# Version:      SQLAlchemy 2.1.9 with SQLite 3.40.1 (Python's sqlite3); SQLite says why at lang_upsert.html,
#               "Parsing Ambiguity"
# Good guess:   what SQLAlchemy's own SQLite construct builds is SQL that SQLite takes: an insert from a select, with
#               what to do on a conflict, works as it does on PostgreSQL.
# What happens: if the select reads a table and has no WHERE, SQLite takes ON for the start of a join condition, and
#               raises a syntax error near DO. SQLAlchemy does not add the WHERE that it would take, nor warn; the same
#               statement runs on PostgreSQL, so tests there do not see it.
# So:           give each such select a condition, `.where(true())` if there is none.
#
# It needs no server. Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check sqlalchemy==2.1.9

seen=$("$folder/venv/bin/python" - <<'PY'
from sqlalchemy import Column, Integer, MetaData, Table, Text, create_engine, select, true
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import OperationalError

metadata = MetaData()
totals = Table("totals", metadata, Column("name", Text, primary_key=True), Column("sold", Integer))
today = Table("today", metadata, Column("name", Text), Column("sold", Integer))
rows = select(today.c.name, today.c.sold)

with create_engine("sqlite://").begin() as connection:
    metadata.create_all(connection)
    connection.execute(today.insert(), [{"name": "pears", "sold": 3}])
    for told, selected in [("without a condition", rows), ("where true()", rows.where(true()))]:
        insert = sqlite.insert(totals).from_select(["name", "sold"], selected)
        added = {"sold": totals.c.sold + insert.excluded.sold}
        try:
            done = connection.execute(insert.on_conflict_do_update(index_elements=[totals.c.name], set_=added))
            print(f"{told}: {done.rowcount} row")
        except OperationalError as exc:
            print(f"{told}: {exc.orig}")
PY
)
printf '%s\n' "$seen"
expected='without a condition: near "DO": syntax error
where true(): 1 row'
if [ "$seen" != "$expected" ]; then
  printf '\nthis is not what was seen before:\n%s\n' "$expected" >&2
  exit 1
fi
