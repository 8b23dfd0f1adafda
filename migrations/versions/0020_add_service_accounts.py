"""Add service accounts, API keys, and the key of a request in its audit row.

Administrators may manage service accounts.

Step: expand.
"""

from collections.abc import Callable

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from userapi.infrastructure.migration_steps import (
    build_index,
    has_column,
    on_postgresql,
    without_blocking_requests,
)

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TABLES = (
    "api_key_refusals",
    "client_tokens",
    "api_keys",
    "service_account_roles",
    "service_accounts",
)
AUDIT_INDEXES = {
    "ix_audit_logs_key_id_occurred_at_id": "(key_id, occurred_at, id) WHERE key_id IS NOT NULL",
    "ix_audit_logs_actor_type_occurred_at_id": "(actor_type, occurred_at, id)",
}
GRANTED = "service_accounts:*"

roles = sa.table("roles", sa.column("name"), sa.column("permissions", DOCUMENT))


def upgrade() -> None:
    """Add the tables, which an interrupted attempt may have left empty, and the column.

    The catalogue of roles is locked before the users, in the same order as by requests. The column
    is added in a transaction of its own: a request that has locked its user waits for the audit
    log, and would deadlock with the foreign keys to the users.
    """
    _change_administrators(lambda names: [*names, GRANTED] if GRANTED not in names else names)
    _drop_tables()
    _create_accounts()
    _create_keys()
    if on_postgresql():
        with op.get_context().autocommit_block():
            _add_column()
        with without_blocking_requests():
            for name, definition in AUDIT_INDEXES.items():
                build_index(name, "audit_logs", definition)
    else:
        _add_column()
        for name, definition in AUDIT_INDEXES.items():
            op.execute(f"CREATE INDEX IF NOT EXISTS {name} ON audit_logs {definition}")


def _add_column() -> None:
    if not has_column("audit_logs", "key_id"):
        op.add_column("audit_logs", sa.Column("key_id", sa.Uuid(), nullable=True))


def _create_accounts() -> None:
    op.create_table(
        "service_accounts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("description", sa.String(500), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("status_reason", sa.String(500), nullable=True),
        sa.Column("attributes", DOCUMENT, nullable=False),
        sa.Column("search_text", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("access_version", sa.Integer(), nullable=False),
        sa.Column("token_version", sa.Integer(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=True),
        sa.Column("last_used_at", MOMENT, nullable=True),
        sa.CheckConstraint(
            "status IN ('active', 'suspended')", name=op.f("ck_service_accounts_status")
        ),
        sa.PrimaryKeyConstraint("id", name="pk_service_accounts"),
        sa.UniqueConstraint("name", name="uq_service_accounts_name"),
    )
    op.create_index("ix_service_accounts_created_at_id", "service_accounts", ["created_at", "id"])
    op.create_index(
        "ix_service_accounts_last_used_at_id", "service_accounts", ["last_used_at", "id"]
    )
    op.create_table(
        "service_account_roles",
        sa.Column("service_account_id", sa.Uuid(), nullable=False),
        sa.Column("role_name", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(
            ["service_account_id"],
            ["service_accounts.id"],
            name="fk_service_account_roles_service_account_id_service_accounts",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["role_name"],
            ["roles.name"],
            name="fk_service_account_roles_role_name_roles",
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("service_account_id", "role_name", name="pk_service_account_roles"),
    )
    op.create_index("ix_service_account_roles_role_name", "service_account_roles", ["role_name"])


def _create_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("service_account_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("key_hash", sa.String(64), nullable=False),
        sa.Column("hint", sa.String(4), nullable=False),
        sa.Column("permissions", DOCUMENT, nullable=True),
        sa.Column("allowed_networks", DOCUMENT, nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=True),
        sa.Column("expires_at", MOMENT, nullable=True),
        sa.Column("notify_at", MOMENT, nullable=True),
        sa.Column("last_used_at", MOMENT, nullable=True),
        sa.Column("last_used_ip", sa.String(45), nullable=True),
        sa.Column("revoked_at", MOMENT, nullable=True),
        sa.Column("revoked_reason", sa.String(32), nullable=True),
        sa.Column("rotated_from", sa.Uuid(), nullable=True),
        sa.Column("replaced_by", sa.Uuid(), nullable=True),
        sa.CheckConstraint(
            "(user_id IS NULL) <> (service_account_id IS NULL)", name=op.f("ck_api_keys_owner")
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_api_keys_user_id_users", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["service_account_id"],
            ["service_accounts.id"],
            name="fk_api_keys_service_account_id_service_accounts",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
    )
    op.create_index("ix_api_keys_user_id_created_at", "api_keys", ["user_id", "created_at"])
    op.create_index(
        "ix_api_keys_service_account_id_created_at",
        "api_keys",
        ["service_account_id", "created_at"],
    )
    op.create_index("ix_api_keys_expires_at", "api_keys", ["expires_at"])
    for column in ("revoked_at", "notify_at"):
        known = sa.text(f"{column} IS NOT NULL")
        op.create_index(
            f"ix_api_keys_{column}",
            "api_keys",
            [column],
            postgresql_where=known,
            sqlite_where=known,
        )
    op.create_table(
        "client_tokens",
        sa.Column("jti", sa.Uuid(), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.Column("scope", DOCUMENT, nullable=True),
        sa.Column("revoked_at", MOMENT, nullable=True),
        sa.Column("expires_at", MOMENT, nullable=False),
        _of_key("client_tokens"),
        sa.PrimaryKeyConstraint("jti", name="pk_client_tokens"),
    )
    op.create_index("ix_client_tokens_key_id", "client_tokens", ["key_id"])
    op.create_index("ix_client_tokens_expires_at", "client_tokens", ["expires_at"])
    op.create_table(
        "api_key_refusals",
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("recorded_at", MOMENT, nullable=False),
        _of_key("api_key_refusals"),
        sa.PrimaryKeyConstraint("key_id", "reason", name="pk_api_key_refusals"),
    )


def _of_key(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["key_id"], ["api_keys.id"], name=f"fk_{table}_key_id_api_keys", ondelete="CASCADE"
    )


def _change_administrators(change: Callable[[list[str]], list[str]]) -> None:
    """Change the permissions of the built-in role, and with it the version of the catalogue."""
    connection = op.get_bind()
    query = sa.select(roles.c.permissions).where(roles.c.name == "admin")
    before = connection.execute(query).scalar_one_or_none()
    if before is None or change(before) == before:
        return
    connection.execute(sa.text("UPDATE role_catalogue SET version = version + 1"))
    connection.execute(
        sa.update(roles).where(roles.c.name == "admin").values(permissions=change(before))
    )
    connection.execute(
        sa.text(
            "UPDATE roles SET version = (SELECT version FROM role_catalogue) WHERE name = 'admin'"
        )
    )


def downgrade() -> None:
    """Drop the tables and the column. Every service then loses its access."""
    for name in AUDIT_INDEXES:
        op.execute(f"DROP INDEX IF EXISTS {name}")
    _drop_tables()
    _change_administrators(lambda names: [name for name in names if name != GRANTED])
    if has_column("audit_logs", "key_id"):
        op.drop_column("audit_logs", "key_id")


def _drop_tables() -> None:
    for table in TABLES:
        op.execute(f"DROP TABLE IF EXISTS {table}")
