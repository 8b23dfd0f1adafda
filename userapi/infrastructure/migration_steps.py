"""Steps of migrations that can be repeated after a failure and do not block requests.

On PostgreSQL a migration is a short transaction followed by statements within
`without_blocking_requests`, which commit one by one. Each of them skips what is already done.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from alembic import op

# A statement that waits for a lock blocks all others that need it, so it stops soon, and the
# migration is repeated.
LOCK_TIMEOUT = "2s"

_IS_VALID = sa.text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")


def on_postgresql() -> bool:
    """Return whether the migration runs on PostgreSQL."""
    return op.get_bind().dialect.name == "postgresql"


def has_table(name: str) -> bool:
    """Return whether the table exists."""
    return sa.inspect(op.get_bind()).has_table(name)


def has_column(table: str, name: str) -> bool:
    """Return whether the table has the column."""
    return any(column["name"] == name for column in sa.inspect(op.get_bind()).get_columns(table))


@contextmanager
def without_blocking_requests() -> Iterator[None]:
    """Commit what the migration has done so far, and each statement of the block separately.

    There is no lock time-out, so use only statements here that do not block others while they
    wait: those with CONCURRENTLY, VALIDATE CONSTRAINT, changes of few rows.
    """
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        yield
        op.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")


def build_index(name: str, table: str, definition: str, *, unique: bool = False) -> None:
    """Build a PostgreSQL index within `without_blocking_requests`, unless a valid one exists.

    `definition` is what follows the name of the table: `(a, b) WHERE c IS NULL`. An interrupted
    CREATE INDEX CONCURRENTLY leaves an index that is not valid; that one is dropped first.
    """
    if _is_valid(name):
        return
    op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    kind = "UNIQUE INDEX" if unique else "INDEX"
    op.execute(f"CREATE {kind} CONCURRENTLY {name} ON {table} {definition}")


def drop_index(name: str) -> None:
    """Drop an index of PostgreSQL within `without_blocking_requests`, if it exists."""
    op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")


def require_release(oldest_revision: str, *, at: str) -> None:
    """Store that the migration `at` leaves only releases from `oldest_revision` on working.

    For migrations that remove something. Processes of older releases become not ready.
    """
    op.get_bind().execute(
        sa.text(
            "INSERT INTO schema_compatibility (revision, oldest_revision) VALUES (:at, :oldest)"
            " ON CONFLICT (revision) DO UPDATE SET oldest_revision = excluded.oldest_revision"
        ),
        {"at": at, "oldest": oldest_revision},
    )


def allow_every_release(*, at: str) -> None:
    """Undo `require_release` when the migration `at` is undone."""
    op.get_bind().execute(
        sa.text("DELETE FROM schema_compatibility WHERE revision = :at"), {"at": at}
    )


def in_batches(change: Callable[[str, str | None], None], following: sa.TextClause) -> None:
    """Call `change` for each range of ids, from after the first up to the second; None: to the end.

    `following` selects the last id of the batch that begins after `:last`.
    """
    last = "00000000-0000-0000-0000-000000000000"
    while True:
        end = op.get_bind().execute(following, {"last": last}).scalar()
        change(last, None if end is None else str(end))
        if end is None:
            return
        last = str(end)


def _is_valid(name: str) -> bool:
    return bool(op.get_bind().execute(_IS_VALID, {"name": name}).scalar())
