"""Index the search for parts of names and addresses."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a trigram index on PostgreSQL; SQLite reads its small table."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
        op.execute(
            "CREATE INDEX ix_users_search_text_trgm ON users USING gin (search_text gin_trgm_ops)"
        )


def downgrade() -> None:
    """Take the index away; the extension may serve others."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP INDEX ix_users_search_text_trgm")
