"""Add the built-in roles, each inheriting the one before.

Step: expand.
"""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BUILTIN = {
    "user": ("Signs in and looks after their own account.", []),
    "moderator": (
        "Reads users, suspends and unlocks them.",
        ["users:read", "users:suspend", "users:unlock", "sessions:read", "stats:read"],
    ),
    "admin": (
        "Administers users, sessions and roles.",
        [
            "users:*",
            "sessions:*",
            "roles:read",
            "roles:assign",
            "audit:read",
            "system:read",
            "tokens:introspect",
        ],
    ),
    "superadmin": ("May do everything.", ["*"]),
}

roles = sa.table(
    "roles",
    sa.column("name", sa.String()),
    sa.column("description", sa.String()),
    sa.column("permissions", sa.JSON().with_variant(postgresql.JSONB(), "postgresql")),
    sa.column("builtin", sa.Boolean()),
    sa.column("version", sa.Integer()),
    sa.column("created_at", sa.DateTime(timezone=True)),
    sa.column("updated_at", sa.DateTime(timezone=True)),
)
role_parents = sa.table("role_parents", sa.column("role_name"), sa.column("parent_name"))


def upgrade() -> None:
    """Add the roles and the version of the catalogue."""
    now = datetime.now(UTC)
    op.bulk_insert(
        roles,
        [
            {
                "name": name,
                "description": description,
                "permissions": permissions,
                "builtin": True,
                "version": 1,
                "created_at": now,
                "updated_at": now,
            }
            for name, (description, permissions) in BUILTIN.items()
        ],
    )
    names = list(BUILTIN)
    op.bulk_insert(
        role_parents,
        [
            {"role_name": role, "parent_name": parent}
            for parent, role in zip(names, names[1:], strict=False)
        ],
    )
    op.execute("INSERT INTO role_catalogue (id, version) VALUES (1, 1)")


def downgrade() -> None:
    """Delete the roles, and their assignments to users."""
    for table, column in (
        ("user_roles", "role_name"),
        ("role_parents", "role_name"),
        ("role_parents", "parent_name"),
        ("roles", "name"),
    ):
        names = ", ".join(f"'{name}'" for name in BUILTIN)
        op.execute(f"DELETE FROM {table} WHERE {column} IN ({names})")
    op.execute("DELETE FROM role_catalogue")
