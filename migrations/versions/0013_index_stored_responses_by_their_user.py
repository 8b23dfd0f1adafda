"""Index stored responses by their user.

The response that is stored for an Idempotency-Key contains the user that it created, and is deleted
with that user. Responses stored by the previous release have no user here and expire within 24
hours.

Step: expand.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TABLE = "idempotency_keys"
INDEX = "ix_idempotency_keys_user_id"


def upgrade() -> None:
    """Add the column and its index. Can be repeated."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"ALTER TABLE {TABLE} ADD COLUMN IF NOT EXISTS user_id UUID")
        with op.get_context().autocommit_block():
            # An interrupted build leaves an invalid index.
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {INDEX}")
            op.execute(f"CREATE INDEX CONCURRENTLY {INDEX} ON {TABLE} (user_id)")
        return
    columns = {column["name"] for column in sa.inspect(op.get_bind()).get_columns(TABLE)}
    if "user_id" not in columns:
        op.add_column(TABLE, sa.Column("user_id", sa.Uuid(), nullable=True))
    op.execute(f"CREATE INDEX IF NOT EXISTS {INDEX} ON {TABLE} (user_id)")


def downgrade() -> None:
    """Remove the index and the column."""
    op.execute(f"DROP INDEX IF EXISTS {INDEX}")
    op.drop_column(TABLE, "user_id")
