"""Index the fingerprints of the peppers that password hashes need.

A hash of the service names its pepper since the first release, so nothing has to be written: the
index finds out by a few look-ups which peppers are still needed.

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
    """Add the index on PostgreSQL; the few users of a SQLite file are read as they are."""
    if on_postgresql():
        with without_blocking_requests():
            build_index(NAME, "users", DEFINITION)


def downgrade() -> None:
    """Take it away."""
    if on_postgresql():
        op.execute(f"DROP INDEX {NAME}")
