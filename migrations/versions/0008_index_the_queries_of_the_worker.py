"""Index the queries of the worker: postponed and parked events, rows to clean up.

Step: expand.
"""

import sqlalchemy as sa
from alembic import op

from userapi.infrastructure.migration_steps import (
    build_index,
    on_postgresql,
    without_blocking_requests,
)

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# Index → table and column. The indexes contain only rows in which the column is set.
PARTIAL = {
    "ix_outbox_events_held_back": ("outbox_events", "next_attempt_at"),
    "ix_outbox_events_parked_at": ("outbox_events", "parked_at"),
    "ix_outgoing_mails_sent_at": ("outgoing_mails", "sent_at"),
    "ix_user_sessions_revoked_at": ("user_sessions", "revoked_at"),
}


def upgrade() -> None:
    """Add the indexes."""
    if on_postgresql():
        with without_blocking_requests():
            for name, (table, column) in PARTIAL.items():
                build_index(name, table, f"({column}) WHERE {column} IS NOT NULL")
        return
    for name, (table, column) in PARTIAL.items():
        where = sa.text(f"{column} IS NOT NULL")
        op.create_index(name, table, [column], sqlite_where=where)


def downgrade() -> None:
    """Drop the indexes."""
    for name, (table, _) in PARTIAL.items():
        op.drop_index(name, table_name=table)
