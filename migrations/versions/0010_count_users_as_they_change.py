"""Count users as they change: by status, by role and by the day of their last log-in.

Each change of a user adds a row to `tally_changes`, so concurrent changes never wait for each
other, as they would for a shared counter. The worker adds these rows to `tallies`; the sum of both
tables is always exact. Users can change while the existing ones are counted.

Step: expand.
"""

import sqlalchemy as sa
from alembic import op

from userapi.infrastructure.migration_steps import (
    has_table,
    on_postgresql,
    without_blocking_requests,
)

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# The expression for the UTC day of a time in each database.
POSTGRESQL_DAY = "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD')"
SQLITE_DAY = "substr({}, 1, 10)"


def upgrade() -> None:
    """Add the tables, the triggers that fill them, and the counts of existing users."""
    if not has_table("tallies"):
        _add_tables()
    if on_postgresql():
        with without_blocking_requests():
            pass  # Commits, so that every change of a user from now on adds a row.
        day = POSTGRESQL_DAY.format("last_login_at")
        # One statement has one snapshot: the deleted rows are exactly the changes that are counted.
        before = "WITH counted AS (DELETE FROM tally_changes)"
    else:
        day, before = SQLITE_DAY.format("last_login_at"), ""
    op.execute(f"""
        {before}
        INSERT INTO tallies (kind, key, count)
        SELECT 'status', status, count(*) FROM users GROUP BY status
        UNION ALL
        SELECT 'last_login_day', {day}, count(*) FROM users
            WHERE last_login_at IS NOT NULL GROUP BY {day}
        UNION ALL
        SELECT 'role', role_name, count(*) FROM user_roles GROUP BY role_name
        """)


def _add_tables() -> None:
    op.create_table(
        "tallies",
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "key", name="pk_tallies"),
    )
    op.create_table(
        "tally_changes",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("change", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tally_changes"),
    )
    if on_postgresql():
        _trigger_on_postgresql()
    else:
        _trigger_on_sqlite()


def _trigger_on_postgresql() -> None:
    day = POSTGRESQL_DAY
    op.execute(f"""
        CREATE FUNCTION tally_users() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            sign integer := CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END;
        BEGIN
            INSERT INTO tally_changes (kind, key, change)
            SELECT 'status', status, sign * count(*) FROM changed GROUP BY status
            UNION ALL
            SELECT 'last_login_day', {day.format("last_login_at")}, sign * count(*) FROM changed
                WHERE last_login_at IS NOT NULL GROUP BY 2;
            RETURN NULL;
        END $$
        """)
    op.execute(f"""
        CREATE FUNCTION tally_moved_user() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO tally_changes (kind, key, change)
            SELECT * FROM (VALUES
                ('status', OLD.status, -1),
                ('status', NEW.status, 1),
                ('last_login_day', {day.format("OLD.last_login_at")}, -1),
                ('last_login_day', {day.format("NEW.last_login_at")}, 1)
            ) AS move (kind, key, change)
            WHERE key IS NOT NULL AND CASE kind
                WHEN 'status' THEN OLD.status <> NEW.status
                ELSE {day.format("OLD.last_login_at")}
                    IS DISTINCT FROM {day.format("NEW.last_login_at")}
            END;
            RETURN NULL;
        END $$
        """)
    op.execute("""
        CREATE FUNCTION tally_user_roles() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            sign integer := CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END;
        BEGIN
            INSERT INTO tally_changes (kind, key, change)
            SELECT 'role', role_name, sign * count(*) FROM changed GROUP BY role_name;
            RETURN NULL;
        END $$
        """)
    for table, function in (("users", "tally_users"), ("user_roles", "tally_user_roles")):
        for event, rows in (("INSERT", "NEW"), ("DELETE", "OLD")):
            op.execute(
                f"CREATE TRIGGER {table}_{event.lower()}_tallied AFTER {event} ON {table}"
                f" REFERENCING {rows} TABLE AS changed"
                f" FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
            )
    # A second log-in on the same day, and any other change, costs only this comparison.
    op.execute("""
        CREATE TRIGGER users_move_tallied AFTER UPDATE OF status, last_login_at ON users
        FOR EACH ROW WHEN (
            OLD.status <> NEW.status
            OR (OLD.last_login_at AT TIME ZONE 'UTC')::date
                IS DISTINCT FROM (NEW.last_login_at AT TIME ZONE 'UTC')::date
        ) EXECUTE FUNCTION tally_moved_user()
        """)


def _trigger_on_sqlite() -> None:
    add = "INSERT INTO tally_changes (kind, key, change)"
    for event, row, sign in (("INSERT", "NEW", 1), ("DELETE", "OLD", -1)):
        day = SQLITE_DAY.format(f"{row}.last_login_at")
        op.execute(
            f"CREATE TRIGGER users_{event.lower()}_tallied AFTER {event} ON users BEGIN"
            f" {add} VALUES ('status', {row}.status, {sign});"
            f" {add} SELECT 'last_login_day', {day}, {sign} WHERE {day} IS NOT NULL; END"
        )
        op.execute(
            f"CREATE TRIGGER user_roles_{event.lower()}_tallied AFTER {event} ON user_roles BEGIN"
            f" {add} VALUES ('role', {row}.role_name, {sign}); END"
        )
    before, after = (SQLITE_DAY.format(f"{row}.last_login_at") for row in ("OLD", "NEW"))
    op.execute(
        "CREATE TRIGGER users_status_tallied AFTER UPDATE OF status ON users"
        " WHEN OLD.status <> NEW.status BEGIN"
        f" {add} VALUES ('status', OLD.status, -1), ('status', NEW.status, 1); END"
    )
    op.execute(
        "CREATE TRIGGER users_last_login_tallied AFTER UPDATE OF last_login_at ON users"
        f" WHEN {before} IS NOT {after} BEGIN"
        f" {add} SELECT 'last_login_day', {before}, -1 WHERE {before} IS NOT NULL;"
        f" {add} SELECT 'last_login_day', {after}, 1 WHERE {after} IS NOT NULL; END"
    )


def downgrade() -> None:
    """Drop the counts."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER users_move_tallied ON users")
        for table in ("users", "user_roles"):
            for event in ("insert", "delete"):
                op.execute(f"DROP TRIGGER {table}_{event}_tallied ON {table}")
        op.execute("DROP FUNCTION tally_users()")
        op.execute("DROP FUNCTION tally_moved_user()")
        op.execute("DROP FUNCTION tally_user_roles()")
    else:
        for name in (
            "users_insert",
            "users_delete",
            "users_status",
            "users_last_login",
            "user_roles_insert",
            "user_roles_delete",
        ):
            op.execute(f"DROP TRIGGER {name}_tallied")
    op.drop_table("tally_changes")
    op.drop_table("tallies")
