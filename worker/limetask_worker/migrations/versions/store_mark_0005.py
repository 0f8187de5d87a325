"""Create the table that says which store this is, and who records into it."""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the table with its one row."""
    mark = op.create_table(
        "limetask_store",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("recorder", sa.Text),
        sa.Column("recorder_seen_at", sa.DateTime(timezone=True)),
    )
    op.bulk_insert(mark, [{"id": str(uuid.uuid4())}])
