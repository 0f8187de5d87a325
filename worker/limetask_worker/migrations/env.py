"""How Alembic runs the migrations: on the connection and in the transaction of `limetask_worker.schema`."""

from __future__ import annotations

from alembic import context

from limetask.store_tables import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
