"""Create the table of the starts that were taken back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Create the table, empty: what was taken back before this is not remembered."""
    op.create_table(
        "limetask_start_taken_back",
        sa.Column("task_id", sa.Uuid(as_uuid=False), primary_key=True),
        sa.Column("worker", sa.Text, primary_key=True),
        sa.Column("started_at", sa.DateTime(timezone=True), primary_key=True),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=False),
    )
