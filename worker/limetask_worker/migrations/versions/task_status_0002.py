"""Count how often the body of an attempt has begun."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the count; what has started before has begun once."""
    op.add_column("limetask_task_status", sa.Column("begun", sa.Integer, nullable=False, server_default="1"))
