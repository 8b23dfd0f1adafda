"""Index the count of live sessions.

Step: expand.
"""

import sqlalchemy as sa
from alembic import op

from userapi.infrastructure.migration_steps import (
    build_index,
    on_postgresql,
    without_blocking_requests,
)

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add an index that contains all columns of the count."""
    if on_postgresql():
        with without_blocking_requests():
            build_index(
                "ix_user_sessions_live_expires_at",
                "user_sessions",
                "(expires_at, rotated_at) WHERE revoked_at IS NULL",
            )
        return
    op.create_index(
        "ix_user_sessions_live_expires_at",
        "user_sessions",
        ["expires_at", "rotated_at"],
        sqlite_where=sa.text("revoked_at IS NULL"),
    )


def downgrade() -> None:
    """Drop the index."""
    op.drop_index("ix_user_sessions_live_expires_at", table_name="user_sessions")
