"""Add bulk changes of all users that match a filter, which the worker runs.

Step: expand.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TABLES = ("bulk_job_failures", "bulk_job_batches", "bulk_jobs")


def upgrade() -> None:
    """Add the tables. Those of an interrupted attempt are empty, and dropped first."""
    _drop_tables()
    op.create_table(
        "bulk_jobs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("role", sa.String(length=64), nullable=True),
        sa.Column("reason", sa.String(length=500), nullable=True),
        sa.Column("user_count", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
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
            name=op.f("ck_bulk_jobs_state"),
        ),
        sa.PrimaryKeyConstraint("id", name="pk_bulk_jobs"),
    )
    unfinished = sa.text("finished_at IS NULL")
    op.create_index(
        "ix_bulk_jobs_unfinished",
        "bulk_jobs",
        ["advanced_at"],
        postgresql_where=unfinished,
        sqlite_where=unfinished,
    )
    op.create_index("ix_bulk_jobs_finished_at", "bulk_jobs", ["finished_at"])
    op.create_table(
        "bulk_job_batches",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("user_ids", DOCUMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["bulk_jobs.id"],
            name="fk_bulk_job_batches_job_id_bulk_jobs",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("job_id", "number", name="pk_bulk_job_batches"),
    )
    op.create_table(
        "bulk_job_failures",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("code", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["bulk_jobs.id"],
            name="fk_bulk_job_failures_job_id_bulk_jobs",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_bulk_job_failures"),
    )
    op.create_index(
        "uq_bulk_job_failures_job_id_user_id",
        "bulk_job_failures",
        ["job_id", "user_id"],
        unique=True,
    )
    op.create_index("ix_bulk_job_failures_job_id_id", "bulk_job_failures", ["job_id", "id"])


def downgrade() -> None:
    """Drop the tables, including waiting bulk changes."""
    _drop_tables()


def _drop_tables() -> None:
    for table in TABLES:
        op.execute(f"DROP TABLE IF EXISTS {table}")
