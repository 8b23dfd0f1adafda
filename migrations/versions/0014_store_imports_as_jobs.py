"""Store imports as jobs: the job, its encrypted rows, and the result of each row.

Step: expand.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TABLES = ("user_import_results", "user_import_batches", "user_imports")


def upgrade() -> None:
    """Add the tables. Tables of an interrupted attempt are empty, and dropped first."""
    _drop_tables()
    op.create_table(
        "user_imports",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column("row_count", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("created", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("ignored_columns", DOCUMENT, nullable=False),
        sa.Column("next_batch", sa.Integer(), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        sa.Column("actor", DOCUMENT, nullable=False),
        sa.Column("claimed_by", sa.String(length=32), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("advanced_at", MOMENT, nullable=False),
        sa.Column("started_at", MOMENT, nullable=True),
        sa.Column("finished_at", MOMENT, nullable=True),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'done', 'failed', 'cancelled')",
            name=op.f("ck_user_imports_state"),
        ),
        sa.PrimaryKeyConstraint("id", name="pk_user_imports"),
    )
    unfinished = sa.text("finished_at IS NULL")
    op.create_index(
        "ix_user_imports_unfinished",
        "user_imports",
        ["advanced_at"],
        postgresql_where=unfinished,
        sqlite_where=unfinished,
    )
    op.create_index("ix_user_imports_finished_at", "user_imports", ["finished_at"])
    op.create_table(
        "user_import_batches",
        sa.Column("import_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["import_id"],
            ["user_imports.id"],
            name="fk_user_import_batches_import_id_user_imports",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("import_id", "number", name="pk_user_import_batches"),
    )
    op.create_table(
        "user_import_results",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("import_id", sa.Uuid(), nullable=False),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("code", sa.String(length=64), nullable=True),
        sa.Column("errors", DOCUMENT, nullable=True),
        sa.ForeignKeyConstraint(
            ["import_id"],
            ["user_imports.id"],
            name="fk_user_import_results_import_id_user_imports",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_user_import_results"),
    )
    op.create_index(
        "uq_user_import_results_import_id_row",
        "user_import_results",
        ["import_id", "row"],
        unique=True,
    )


def downgrade() -> None:
    """Drop the tables, including waiting imports."""
    _drop_tables()


def _drop_tables() -> None:
    for table in TABLES:
        op.execute(f"DROP TABLE IF EXISTS {table}")
