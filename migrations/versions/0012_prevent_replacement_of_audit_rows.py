"""Prevent the replacement of audit rows.

On SQLite `INSERT OR REPLACE` deletes a row without the triggers that reject a DELETE. On PostgreSQL
the closest statement, `ON CONFLICT DO UPDATE`, is an UPDATE, which is already rejected.

Step: expand.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# Table → its key, and the text of the error.
KEYS = {
    "audit_logs": ("id", "audit rows cannot be changed or deleted"),
    "audit_seals": ("number", "audit seals cannot be changed or deleted"),
}


def upgrade() -> None:
    """Reject a row whose key exists already, before it replaces the existing row."""
    if op.get_bind().dialect.name == "postgresql":
        return
    for table, (key, refusal) in KEYS.items():
        op.execute(
            f"CREATE TRIGGER {table}_irreplaceable BEFORE INSERT ON {table}"
            f" WHEN EXISTS (SELECT 1 FROM {table} WHERE {key} = NEW.{key})"
            f" BEGIN SELECT RAISE(ABORT, '{refusal}'); END"
        )


def downgrade() -> None:
    """Drop the triggers."""
    if op.get_bind().dialect.name == "postgresql":
        return
    for table in KEYS:
        op.execute(f"DROP TRIGGER {table}_irreplaceable")
