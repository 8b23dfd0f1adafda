"""Add second factors, and how each session has authenticated its user.

Existing sessions were authenticated by a password when they were created.

Step: expand.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from userapi.infrastructure.migration_steps import (
    build_index,
    has_column,
    on_postgresql,
    without_blocking_requests,
)

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TABLES = (
    "totp_factors",
    "passkeys",
    "recovery_codes",
    "pending_sign_ins",
    "used_challenges",
    "webauthn_users",
)
MFA_INDEX = "ix_users_mfa_enabled"


def _new_columns() -> tuple[tuple[str, sa.Column[object]], ...]:
    return (
        ("users", sa.Column("mfa_enabled", sa.Boolean, nullable=False, server_default=sa.false())),
        ("user_sessions", sa.Column("authenticated_at", MOMENT, nullable=True)),
        ("user_sessions", sa.Column("acr", sa.String(8), nullable=False, server_default="aal1")),
        ("user_sessions", sa.Column("amr", sa.String(64), nullable=False, server_default="pwd")),
        (
            "login_attempts",
            sa.Column("total_failures", sa.Integer(), nullable=False, server_default="0"),
        ),
    )


def upgrade() -> None:
    """Add the columns and the tables, which an interrupted attempt may have left empty."""
    for table, column in _new_columns():
        if not has_column(table, column.name):
            op.add_column(table, column)
    _drop_tables()
    _create_factors()
    _create_sign_ins()
    if on_postgresql():
        with without_blocking_requests():
            build_index(MFA_INDEX, "users", "(created_at, id) WHERE mfa_enabled")
    else:
        op.execute(
            f"CREATE INDEX IF NOT EXISTS {MFA_INDEX} ON users (created_at, id) WHERE mfa_enabled"
        )


def _create_factors() -> None:
    op.create_table(
        "totp_factors",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.String(16), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("confirmed_at", MOMENT, nullable=True),
        sa.Column("expires_at", MOMENT, nullable=True),
        sa.Column("last_used_at", MOMENT, nullable=True),
        _owner("totp_factors"),
        sa.PrimaryKeyConstraint("id", name="pk_totp_factors"),
    )
    op.create_index("ix_totp_factors_user_id", "totp_factors", ["user_id"])
    pending = sa.text("confirmed_at IS NULL")
    op.create_index(
        "ix_totp_factors_pending_user_id",
        "totp_factors",
        ["user_id"],
        unique=True,
        postgresql_where=pending,
        sqlite_where=pending,
    )
    op.create_index("ix_totp_factors_key_id", "totp_factors", ["key_id"])
    op.create_table(
        "passkeys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("credential_id", sa.LargeBinary(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("sign_count", sa.BigInteger(), nullable=False),
        sa.Column("backup_eligible", sa.Boolean(), nullable=False),
        sa.Column("backed_up", sa.Boolean(), nullable=False),
        sa.Column("transports", DOCUMENT, nullable=False),
        sa.Column("rp_id", sa.String(253), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("last_used_at", MOMENT, nullable=True),
        _owner("passkeys"),
        sa.PrimaryKeyConstraint("id", name="pk_passkeys"),
        sa.UniqueConstraint("credential_id", name="uq_passkeys_credential_id"),
    )
    op.create_index("ix_passkeys_user_id", "passkeys", ["user_id"])
    op.create_index("ix_passkeys_rp_id", "passkeys", ["rp_id"])
    op.create_table(
        "recovery_codes",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("salt", sa.String(64), nullable=False),
        sa.Column("code_hash", sa.String(128), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("used_at", MOMENT, nullable=True),
        _owner("recovery_codes"),
        sa.PrimaryKeyConstraint("id", name="pk_recovery_codes"),
    )
    op.create_index("ix_recovery_codes_user_id", "recovery_codes", ["user_id"])


def _create_sign_ins() -> None:
    op.create_table(
        "pending_sign_ins",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("lockout_key", sa.String(64), nullable=False),
        sa.Column("amr", sa.String(64), nullable=False),
        sa.Column("remember_me", sa.Boolean(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        _owner("pending_sign_ins"),
        sa.PrimaryKeyConstraint("id", name="pk_pending_sign_ins"),
        sa.UniqueConstraint("token_hash", name="uq_pending_sign_ins_token_hash"),
    )
    op.create_index("ix_pending_sign_ins_user_id", "pending_sign_ins", ["user_id", "created_at"])
    op.create_index("ix_pending_sign_ins_expires_at", "pending_sign_ins", ["expires_at"])
    op.create_table(
        "used_challenges",
        sa.Column("challenge_hash", sa.String(64), nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("challenge_hash", name="pk_used_challenges"),
    )
    op.create_index("ix_used_challenges_expires_at", "used_challenges", ["expires_at"])
    op.create_table(
        "webauthn_users",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("handle", sa.LargeBinary(), nullable=False),
        _owner("webauthn_users"),
        sa.PrimaryKeyConstraint("user_id", name="pk_webauthn_users"),
        sa.UniqueConstraint("handle", name="uq_webauthn_users_handle"),
    )


def _owner(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["user_id"], ["users.id"], name=f"fk_{table}_user_id_users", ondelete="CASCADE"
    )


def downgrade() -> None:
    """Drop the tables and the columns; every user then signs in with the password alone."""
    op.execute(f"DROP INDEX IF EXISTS {MFA_INDEX}")
    _drop_tables()
    for table, column in _new_columns():
        if has_column(table, column.name):
            op.drop_column(table, column.name)


def _drop_tables() -> None:
    for table in TABLES:
        op.execute(f"DROP TABLE IF EXISTS {table}")
