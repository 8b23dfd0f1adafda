"""Count published events, so that every process can report them in /metrics.

Step: expand.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the count. It starts at 0, because rows of events published before are partly deleted."""
    op.create_table(
        "published_events",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name="ck_published_events_single_row"),
        sa.PrimaryKeyConstraint("id", name="pk_published_events"),
    )
    op.execute("INSERT INTO published_events (id, total) VALUES (1, 0)")


def downgrade() -> None:
    """Drop the count."""
    op.drop_table("published_events")
