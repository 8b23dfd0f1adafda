"""Count events that expired and were deleted without being published.

Step: expand.
"""

import sqlalchemy as sa
from alembic import op

from userapi.infrastructure.migration_steps import has_column

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the count to the single row that counts published events."""
    if not has_column("published_events", "expired"):
        op.add_column(
            "published_events",
            sa.Column("expired", sa.BigInteger(), nullable=False, server_default="0"),
        )


def downgrade() -> None:
    """Drop the count."""
    op.execute("ALTER TABLE published_events DROP COLUMN expired")
