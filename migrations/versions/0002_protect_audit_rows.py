"""Prevent changes and deletions of audit rows.

Step: expand.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

REFUSAL = "audit rows cannot be changed or deleted"


def upgrade() -> None:
    """Add the triggers, and the row by which `flask audit prune` allows deletions."""
    op.create_table(
        "audit_retention",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("deletable_before", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("id = 1", name="ck_audit_retention_single_row"),
        sa.PrimaryKeyConstraint("id", name="pk_audit_retention"),
    )
    op.execute("INSERT INTO audit_retention (id, deletable_before) VALUES (1, NULL)")
    if op.get_bind().dialect.name == "postgresql":
        _protect_on_postgresql()
    else:
        _protect_on_sqlite()


def _protect_on_postgresql() -> None:
    op.execute(f"""
        CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'DELETE' THEN
                IF OLD.occurred_at < (SELECT deletable_before FROM audit_retention) THEN
                    RETURN OLD;
                END IF;
            END IF;
            RAISE EXCEPTION '{REFUSAL}' USING ERRCODE = 'insufficient_privilege';
        END $$
        """)
    op.execute(
        "CREATE TRIGGER audit_logs_unchangeable BEFORE UPDATE OR DELETE ON audit_logs"
        " FOR EACH ROW EXECUTE FUNCTION refuse_audit_change()"
    )
    op.execute(
        "CREATE TRIGGER audit_logs_not_emptied BEFORE TRUNCATE ON audit_logs"
        " FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change()"
    )


def _protect_on_sqlite() -> None:
    op.execute(
        "CREATE TRIGGER audit_logs_unchangeable BEFORE UPDATE ON audit_logs"
        f" BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
    )
    op.execute(
        "CREATE TRIGGER audit_logs_undeletable BEFORE DELETE ON audit_logs"
        " WHEN NOT COALESCE(OLD.occurred_at < (SELECT deletable_before FROM audit_retention), 0)"
        f" BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
    )


def downgrade() -> None:
    """Drop the triggers and the table."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER audit_logs_not_emptied ON audit_logs")
        op.execute("DROP TRIGGER audit_logs_unchangeable ON audit_logs")
        op.execute("DROP FUNCTION refuse_audit_change()")
    else:
        op.execute("DROP TRIGGER audit_logs_undeletable")
        op.execute("DROP TRIGGER audit_logs_unchangeable")
    op.drop_table("audit_retention")
