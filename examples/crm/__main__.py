"""`python -m crm`: make the applications' databases and fill them."""

from __future__ import annotations

from .application import IDENTIFIERS, open_application
from .database import TABLES, create_database, insert_rows, read_rows


def main() -> None:
    """Make every application's database anew."""
    for identifier in IDENTIFIERS:
        create_database(identifier)
        with open_application(identifier) as app:
            for table in TABLES:
                rows = read_rows(identifier, table)
                insert_rows(app.database, table, rows)
                print(f"{identifier}: {len(rows)} rows in {table}")


if __name__ == "__main__":
    main()
