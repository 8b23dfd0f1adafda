"""Store the oldest release that works with the schema.

A process reads the table when the database is at a migration that its release does not contain.

Step: expand.
"""

import sqlalchemy as sa
from alembic import op

from userapi.infrastructure.migration_steps import has_table

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    if not has_table("schema_compatibility"):
        op.create_table(
            "schema_compatibility",
            sa.Column("revision", sa.String(32), nullable=False),
            sa.Column("oldest_revision", sa.String(32), nullable=False),
            sa.PrimaryKeyConstraint("revision", name="pk_schema_compatibility"),
        )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("schema_compatibility")
