"""Store the content of refused rows of imports, so that they can be corrected.

Step: expand.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from userapi.infrastructure.migration_steps import has_column

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Add the column. Earlier results have no content."""
    if not has_column("user_import_results", "content"):
        op.add_column("user_import_results", sa.Column("content", DOCUMENT, nullable=True))


def downgrade() -> None:
    """Drop the column."""
    op.execute("ALTER TABLE user_import_results DROP COLUMN content")
