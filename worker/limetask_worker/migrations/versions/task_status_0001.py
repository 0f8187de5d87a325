"""Create the table of task statuses."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the table, and the index that finds what a lost worker was running."""
    op.create_table(
        "limetask_task_status",
        sa.Column("task_id", sa.Uuid(as_uuid=False), primary_key=True),
        sa.Column("app", sa.Text, nullable=False),
        sa.Column("task_name", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("rank", sa.SmallInteger, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("result", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("worker", sa.Text),
        sa.Column("acks_late", sa.Boolean),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
    )
    op.create_index(
        "limetask_task_status_started",
        "limetask_task_status",
        ["worker"],
        postgresql_where=sa.text("status = 'STARTED'"),
        sqlite_where=sa.text("status = 'STARTED'"),
    )
