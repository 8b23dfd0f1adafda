"""Index searches of one or two characters, and the order of last log-ins.

Trigrams do not help to find a text shorter than three characters; an index of all single characters
and pairs does. The order by last log-in has "never" last in both directions, which requires an
index for each. Only PostgreSQL has these indexes. Building them takes a minute for a million users,
who can change meanwhile.

Step: expand.
"""

from alembic import op

from userapi.infrastructure.migration_steps import (
    build_index,
    on_postgresql,
    without_blocking_requests,
)

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

INDEXES = {
    "ix_users_search_text_grams": "USING gin (search_grams(search_text))",
    "ix_users_last_login_at_never_first": (
        "(coalesce(last_login_at, '1900-01-01 00:00:00+00'::timestamptz), id)"
    ),
    "ix_users_last_login_at_never_last": (
        "(coalesce(last_login_at, '9999-12-31 00:00:00+00'::timestamptz), id)"
    ),
}


def upgrade() -> None:
    """Add the indexes."""
    if not on_postgresql():
        return
    op.execute("""
        CREATE OR REPLACE FUNCTION search_grams(text) RETURNS text[]
            LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
        AS $$
            SELECT array(
                SELECT substr($1, start, length)
                FROM generate_series(1, length($1)) start, generate_series(1, 2) length
            )
        $$
        """)
    with without_blocking_requests():
        for name, definition in INDEXES.items():
            build_index(name, "users", definition)
    op.execute("ANALYZE users")


def downgrade() -> None:
    """Drop the indexes."""
    if op.get_bind().dialect.name != "postgresql":
        return
    for name in INDEXES:
        op.execute(f"DROP INDEX {name}")
    op.execute("DROP FUNCTION search_grams(text)")
