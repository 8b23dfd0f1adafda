"""Index the fingerprints of the peppers that password hashes need.

Every hash has contained the fingerprint of its pepper since the first release, so no row changes.
With the index, a few lookups find which peppers are still needed.

Step: expand.
"""

from alembic import op

from userapi.infrastructure.migration_steps import (
    build_index,
    on_postgresql,
    without_blocking_requests,
)

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

NAME = "ix_users_password_hash_peppers"
DEFINITION = "(substr(password_hash, 8, 8)) WHERE substr(password_hash, 1, 7) = '$aima1$'"


def upgrade() -> None:
    """Add the index on PostgreSQL. SQLite reads the whole table, which is small."""
    if on_postgresql():
        with without_blocking_requests():
            build_index(NAME, "users", DEFINITION)


def downgrade() -> None:
    """Drop the index."""
    if on_postgresql():
        op.execute(f"DROP INDEX {NAME}")
