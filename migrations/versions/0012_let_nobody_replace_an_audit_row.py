"""Let nobody replace an audit row.

On SQLite `INSERT OR REPLACE` deletes a row without telling the triggers that refuse a DELETE. On
PostgreSQL what comes nearest, `ON CONFLICT DO UPDATE`, is an UPDATE, which is refused already.

Step: expand.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# Table → its key, and what the refusal says.
KEYS = {
    "audit_logs": ("id", "audit rows cannot be changed or deleted"),
    "audit_seals": ("number", "audit seals cannot be changed or deleted"),
}


def upgrade() -> None:
    """Refuse a row whose key is there already, before it takes the place of the other."""
    if op.get_bind().dialect.name == "postgresql":
        return
    for table, (key, refusal) in KEYS.items():
        op.execute(
            f"CREATE TRIGGER {table}_irreplaceable BEFORE INSERT ON {table}"
            f" WHEN EXISTS (SELECT 1 FROM {table} WHERE {key} = NEW.{key})"
            f" BEGIN SELECT RAISE(ABORT, '{refusal}'); END"
        )


def downgrade() -> None:
    """Take the triggers away."""
    if op.get_bind().dialect.name == "postgresql":
        return
    for table in KEYS:
        op.execute(f"DROP TRIGGER {table}_irreplaceable")
