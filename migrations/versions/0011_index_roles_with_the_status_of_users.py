"""Index roles together with the status of their users.

There can be few suspended moderators among many suspended users and many moderators. An index finds
them only if the role and the status are in one table, so each row of `user_roles` has a copy of the
status, which triggers maintain. On PostgreSQL, filling existing rows blocks no other statement; a
million rows take half a minute.

Step: expand.
"""

import sqlalchemy as sa
from alembic import op

from userapi.infrastructure.migration_steps import (
    build_index,
    drop_index,
    has_column,
    in_batches,
    on_postgresql,
    without_blocking_requests,
)

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

FOLLOWING = sa.text(
    "SELECT user_id FROM user_roles WHERE user_id > :last ORDER BY user_id OFFSET 9999 LIMIT 1"
)
# A value that the trigger has written is newer than the snapshot of this statement.
COPY = """
    UPDATE user_roles SET user_status = users.status FROM users
    WHERE users.id = user_id AND user_status IS NULL AND user_id > :last
    """


def upgrade() -> None:
    """Add the copy, the triggers that maintain it, and the index."""
    if on_postgresql():
        if not has_column("user_roles", "user_status"):
            _add_copy_on_postgresql()
        with without_blocking_requests():
            in_batches(_copy, FOLLOWING)
            build_index(
                "ix_user_roles_role_name_user_status_user_id",
                "user_roles",
                "(role_name, user_status, user_id)",
            )
            drop_index("ix_user_roles_role_name_user_id")
            # All rows were rewritten: index-only scans need the visibility map that VACUUM creates.
            op.execute("VACUUM ANALYZE user_roles")
    else:
        op.add_column("user_roles", sa.Column("user_status", sa.String(length=16), nullable=True))
        _upgrade_sqlite()


def _add_copy_on_postgresql() -> None:
    op.add_column("user_roles", sa.Column("user_status", sa.String(length=16), nullable=True))
    op.execute("""
        CREATE FUNCTION copy_status_to_new_role() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            -- Waits for who changes the status right now, and keeps others from it.
            SELECT status INTO NEW.user_status FROM users WHERE id = NEW.user_id FOR SHARE;
            RETURN NEW;
        END $$
        """)
    op.execute("""
        CREATE FUNCTION copy_status_to_roles() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            UPDATE user_roles SET user_status = NEW.status WHERE user_id = NEW.id;
            RETURN NULL;
        END $$
        """)
    op.execute(
        "CREATE TRIGGER user_roles_status_copied BEFORE INSERT ON user_roles"
        " FOR EACH ROW EXECUTE FUNCTION copy_status_to_new_role()"
    )
    op.execute(
        "CREATE TRIGGER users_status_copied AFTER UPDATE OF status ON users"
        " FOR EACH ROW WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION copy_status_to_roles()"
    )


def _copy(last: str, end: str | None) -> None:
    statement = COPY if end is None else f"{COPY} AND user_id <= :end"
    values = {"last": last} if end is None else {"last": last, "end": end}
    op.get_bind().execute(sa.text(statement), values)


def _upgrade_sqlite() -> None:
    op.execute(
        "CREATE TRIGGER user_roles_status_copied AFTER INSERT ON user_roles BEGIN"
        " UPDATE user_roles SET user_status = (SELECT status FROM users WHERE id = NEW.user_id)"
        " WHERE user_id = NEW.user_id AND role_name = NEW.role_name; END"
    )
    op.execute(
        "CREATE TRIGGER users_status_copied AFTER UPDATE OF status ON users"
        " WHEN OLD.status <> NEW.status BEGIN"
        " UPDATE user_roles SET user_status = NEW.status WHERE user_id = NEW.id; END"
    )
    op.execute("UPDATE user_roles SET user_status = (SELECT status FROM users WHERE id = user_id)")
    op.create_index(
        "ix_user_roles_role_name_user_status_user_id",
        "user_roles",
        ["role_name", "user_status", "user_id"],
    )
    op.drop_index("ix_user_roles_role_name_user_id", table_name="user_roles")


def downgrade() -> None:
    """Drop the copy."""
    op.create_index("ix_user_roles_role_name_user_id", "user_roles", ["role_name", "user_id"])
    op.drop_index("ix_user_roles_role_name_user_status_user_id", table_name="user_roles")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER users_status_copied ON users")
        op.execute("DROP TRIGGER user_roles_status_copied ON user_roles")
        op.execute("DROP FUNCTION copy_status_to_roles()")
        op.execute("DROP FUNCTION copy_status_to_new_role()")
    else:
        op.execute("DROP TRIGGER users_status_copied")
        op.execute("DROP TRIGGER user_roles_status_copied")
    op.execute("ALTER TABLE user_roles DROP COLUMN user_status")
