"""Index the search for parts of names and addresses.

Step: expand.
"""

from alembic import op

from userapi.infrastructure.migration_steps import (
    build_index,
    on_postgresql,
    without_blocking_requests,
)

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a trigram index on PostgreSQL. SQLite reads the whole table, which is small."""
    if not on_postgresql():
        return
    op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    with without_blocking_requests():
        build_index("ix_users_search_text_trgm", "users", "USING gin (search_text gin_trgm_ops)")


def downgrade() -> None:
    """Drop the index, but not the extension, which other applications may use."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP INDEX ix_users_search_text_trgm")
