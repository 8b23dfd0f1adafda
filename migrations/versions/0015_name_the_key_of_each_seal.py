"""Name the key of each audit seal, and record where a chain of seals begins.

Earlier seals have no key id: their key is found by trying all keys. Each statement can run again
after a failure.

Step: expand.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

REFUSAL = "the beginning of a chain cannot be changed or deleted"
INDEX = "ix_audit_seals_key_id_number"


def upgrade() -> None:
    """Add the columns, the table of chain starts and its triggers."""
    for table in ("audit_seals", "audit_seal_head"):
        if "key_id" not in _columns(table):
            op.add_column(table, sa.Column("key_id", sa.String(length=16), nullable=True))
    if not sa.inspect(op.get_bind()).has_table("audit_chain_starts"):
        op.create_table(
            "audit_chain_starts",
            sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
            sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
            sa.Column("reason", sa.String(length=500), nullable=False),
            sa.Column("former_mac", sa.String(length=64), nullable=False),
            sa.Column("lost_keys", sa.String(length=1000), nullable=False),
            sa.Column("key_id", sa.String(length=16), nullable=False),
            sa.Column("mac", sa.String(length=64), nullable=False),
            sa.PrimaryKeyConstraint("number", name="pk_audit_chain_starts"),
        )
    if op.get_bind().dialect.name == "postgresql":
        _protect_on_postgresql()
        with op.get_context().autocommit_block():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {INDEX}")
            op.execute(f"CREATE INDEX CONCURRENTLY {INDEX} ON audit_seals (key_id, number)")
    else:
        _protect_on_sqlite()
        op.execute(f"CREATE INDEX IF NOT EXISTS {INDEX} ON audit_seals (key_id, number)")


def _columns(table: str) -> set[str]:
    return {column["name"] for column in sa.inspect(op.get_bind()).get_columns(table)}


def _protect_on_postgresql() -> None:
    op.execute(f"""
        CREATE OR REPLACE FUNCTION refuse_chain_start_change()
        RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '{REFUSAL}' USING ERRCODE = 'insufficient_privilege';
        END $$
        """)
    op.execute("DROP TRIGGER IF EXISTS audit_chain_starts_unchangeable ON audit_chain_starts")
    op.execute(
        "CREATE TRIGGER audit_chain_starts_unchangeable"
        " BEFORE UPDATE OR DELETE ON audit_chain_starts"
        " FOR EACH ROW EXECUTE FUNCTION refuse_chain_start_change()"
    )
    op.execute("DROP TRIGGER IF EXISTS audit_chain_starts_not_emptied ON audit_chain_starts")
    op.execute(
        "CREATE TRIGGER audit_chain_starts_not_emptied BEFORE TRUNCATE ON audit_chain_starts"
        " FOR EACH STATEMENT EXECUTE FUNCTION refuse_chain_start_change()"
    )


def _protect_on_sqlite() -> None:
    for name, event in (("unchangeable", "UPDATE"), ("undeletable", "DELETE")):
        op.execute(
            f"CREATE TRIGGER IF NOT EXISTS audit_chain_starts_{name}"
            f" BEFORE {event} ON audit_chain_starts"
            f" BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
        )
    op.execute(
        "CREATE TRIGGER IF NOT EXISTS audit_chain_starts_irreplaceable"
        " BEFORE INSERT ON audit_chain_starts"
        " WHEN EXISTS (SELECT 1 FROM audit_chain_starts WHERE number = NEW.number)"
        f" BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
    )


def downgrade() -> None:
    """Drop them. Seals made with another key than SECRET_KEY can then no longer be verified."""
    op.drop_table("audit_chain_starts")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION refuse_chain_start_change()")
    op.drop_index(INDEX, table_name="audit_seals")
    for table in ("audit_seal_head", "audit_seals"):
        op.execute(f"ALTER TABLE {table} DROP COLUMN key_id")
