"""Add seals of audit rows and daily counts, and prevent changes of seals.

Existing rows are queued for sealing while requests run: a million take about ten seconds.

Step: expand.
"""

import sqlalchemy as sa
from alembic import op

from userapi.infrastructure.migration_steps import (
    has_table,
    in_batches,
    on_postgresql,
    without_blocking_requests,
)

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

REFUSAL = "audit seals cannot be changed or deleted"
MOMENT = sa.DateTime(timezone=True)
FOLLOWING = sa.text("SELECT id FROM audit_logs WHERE id > :last ORDER BY id OFFSET 9999 LIMIT 1")
QUEUE = """
    INSERT INTO audit_unsealed (audit_id) SELECT id FROM audit_logs WHERE id > :last{end}
    ON CONFLICT DO NOTHING
    """


def upgrade() -> None:
    """Add the chain, and the queue to which a trigger adds every audit row."""
    if not has_table("audit_unsealed"):
        _add_chain()
    if on_postgresql():
        with without_blocking_requests():
            in_batches(_queue, FOLLOWING)
    else:
        op.execute("INSERT INTO audit_unsealed (audit_id) SELECT id FROM audit_logs")


def _queue(last: str, end: str | None) -> None:
    statement = QUEUE.format(end="" if end is None else " AND id <= :end")
    values = {"last": last} if end is None else {"last": last, "end": end}
    op.get_bind().execute(sa.text(statement), values)


def _add_chain() -> None:
    op.create_table(
        "audit_unsealed",
        sa.Column("audit_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("audit_id", name="pk_audit_unsealed"),
    )
    op.create_table(
        "audit_seals",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("sealed_at", MOMENT, nullable=False),
        sa.Column("first_id", sa.Uuid(), nullable=False),
        sa.Column("last_id", sa.Uuid(), nullable=False),
        sa.Column("earliest_at", MOMENT, nullable=False),
        sa.Column("latest_at", MOMENT, nullable=False),
        sa.Column("row_count", sa.Integer(), nullable=False),
        sa.Column("entries", sa.LargeBinary(), nullable=False),
        sa.Column("previous_mac", sa.String(length=64), nullable=False),
        sa.Column("mac", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_audit_seals"),
    )
    op.create_index("ix_audit_seals_earliest_at", "audit_seals", ["earliest_at"])
    op.create_index("ix_audit_seals_latest_at", "audit_seals", ["latest_at"])
    op.create_table(
        "audit_seal_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("rows_sealed", sa.BigInteger(), nullable=False),
        sa.Column("seal_mac", sa.String(length=64), nullable=False),
        sa.Column("cut_number", sa.BigInteger(), nullable=False),
        sa.Column("cut_rows", sa.BigInteger(), nullable=False),
        sa.Column("cut_mac", sa.String(length=64), nullable=False),
        sa.Column("pruned_before", MOMENT, nullable=True),
        sa.Column("pruned_rows", sa.BigInteger(), nullable=False),
        sa.Column("mac", sa.String(length=64), nullable=False),
        sa.CheckConstraint("id = 1", name="ck_audit_seal_head_single_row"),
        sa.PrimaryKeyConstraint("id", name="pk_audit_seal_head"),
    )
    op.create_table(
        "audit_daily_counts",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day", "action", "outcome", name="pk_audit_daily_counts"),
    )
    op.execute(
        "INSERT INTO audit_seal_head (id, number, rows_sealed, seal_mac, cut_number, cut_rows,"
        " cut_mac, pruned_before, pruned_rows, mac) VALUES (1, 0, 0, '', 0, 0, '', NULL, 0, '')"
    )
    if on_postgresql():
        _trigger_on_postgresql()
    else:
        _trigger_on_sqlite()


def _trigger_on_postgresql() -> None:
    # Once per statement, not per row: COPY of a million rows causes one additional insert.
    op.execute("""
        CREATE FUNCTION queue_audit_rows() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO audit_unsealed (audit_id) SELECT id FROM added;
            RETURN NULL;
        END $$
        """)
    op.execute(
        "CREATE TRIGGER audit_logs_queued AFTER INSERT ON audit_logs"
        " REFERENCING NEW TABLE AS added"
        " FOR EACH STATEMENT EXECUTE FUNCTION queue_audit_rows()"
    )
    op.execute(f"""
        CREATE FUNCTION refuse_seal_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'DELETE' THEN
                IF OLD.latest_at < (SELECT deletable_before FROM audit_retention) THEN
                    RETURN OLD;
                END IF;
            END IF;
            RAISE EXCEPTION '{REFUSAL}' USING ERRCODE = 'insufficient_privilege';
        END $$
        """)
    op.execute(
        "CREATE TRIGGER audit_seals_unchangeable BEFORE UPDATE OR DELETE ON audit_seals"
        " FOR EACH ROW EXECUTE FUNCTION refuse_seal_change()"
    )
    op.execute(
        "CREATE TRIGGER audit_seals_not_emptied BEFORE TRUNCATE ON audit_seals"
        " FOR EACH STATEMENT EXECUTE FUNCTION refuse_seal_change()"
    )


def _trigger_on_sqlite() -> None:
    op.execute(
        "CREATE TRIGGER audit_logs_queued AFTER INSERT ON audit_logs"
        " BEGIN INSERT INTO audit_unsealed (audit_id) VALUES (NEW.id); END"
    )
    op.execute(
        "CREATE TRIGGER audit_seals_unchangeable BEFORE UPDATE ON audit_seals"
        f" BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
    )
    op.execute(
        "CREATE TRIGGER audit_seals_undeletable BEFORE DELETE ON audit_seals"
        " WHEN NOT COALESCE(OLD.latest_at < (SELECT deletable_before FROM audit_retention), 0)"
        f" BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
    )


def downgrade() -> None:
    """Drop the chain. The audit rows stay."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER audit_logs_queued ON audit_logs")
        op.execute("DROP TRIGGER audit_seals_not_emptied ON audit_seals")
        op.execute("DROP TRIGGER audit_seals_unchangeable ON audit_seals")
        op.execute("DROP FUNCTION queue_audit_rows()")
        op.execute("DROP FUNCTION refuse_seal_change()")
    else:
        op.execute("DROP TRIGGER audit_logs_queued")
        op.execute("DROP TRIGGER audit_seals_undeletable")
        op.execute("DROP TRIGGER audit_seals_unchangeable")
    op.drop_table("audit_daily_counts")
    op.drop_table("audit_seal_head")
    op.drop_table("audit_seals")
    op.drop_table("audit_unsealed")
