"""Count the events that were published, so that /metrics of every process can tell.

Step: expand.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the count. It begins at nothing: what was published before is partly cleared away."""
    op.create_table(
        "published_events",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name="ck_published_events_single_row"),
        sa.PrimaryKeyConstraint("id", name="pk_published_events"),
    )
    op.execute("INSERT INTO published_events (id, total) VALUES (1, 0)")


def downgrade() -> None:
    """Take it away."""
    op.drop_table("published_events")
