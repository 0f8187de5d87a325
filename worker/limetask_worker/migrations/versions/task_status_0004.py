"""Keep which starts of an attempt count, instead of how many: one that came to nothing can be taken out at any time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add them; what runs meanwhile counts as started once. The count stays for recorders that still write it."""
    op.add_column("limetask_task_status", sa.Column("earlier_starts", sa.Text))
