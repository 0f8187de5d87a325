"""Create the table of event handlers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the table, empty: running workers tell of their handlers every minute."""
    op.create_table(
        "limetask_event_handler",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("bindings", sa.Text, nullable=False),
        sa.Column("declared_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("heard_at", sa.DateTime(timezone=True), nullable=False),
    )
