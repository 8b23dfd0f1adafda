"""Whether the schema of the database fits this release.

An upgrade migrates the database first, and processes of the previous release continue to serve. A
migration that only adds leaves them working and stores nothing here. One that removes something
stores the newest migration of the oldest release that still works.
"""

from collections.abc import Callable, Iterable
from enum import StrEnum
from functools import cache

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from userapi.infrastructure.database import Base
from userapi.settings import PROJECT_ROOT

OLDEST_REVISIONS = "SELECT oldest_revision FROM schema_compatibility"


class SchemaCompatibility(Base):
    """A migration, and the newest migration of the oldest release that works after it."""

    __tablename__ = "schema_compatibility"

    revision: Mapped[str] = mapped_column(String(32), primary_key=True)
    oldest_revision: Mapped[str] = mapped_column(String(32))


class SchemaState(StrEnum):
    """How the schema of the database differs from that of this release."""

    AHEAD = "ahead"
    BEHIND = "behind"
    CURRENT = "current"
    INCOMPATIBLE = "incompatible"

    @property
    def is_usable(self) -> bool:
        """Return whether this release works with the schema."""
        return self in (SchemaState.AHEAD, SchemaState.CURRENT)


def schema_state(
    revision: str | None, oldest_revisions: Callable[[], Iterable[str]]
) -> SchemaState:
    """Return the state of a database at `revision`; None means that it was never migrated.

    `oldest_revisions` returns the result of OLDEST_REVISIONS. A database that is ahead has the
    table; one that is behind may lack it.
    """
    if revision == head_revision():
        return SchemaState.CURRENT
    if revision is None or revision in _revisions():
        return SchemaState.BEHIND
    if all(oldest in _revisions() for oldest in oldest_revisions()):
        return SchemaState.AHEAD
    return SchemaState.INCOMPATIBLE


def head_revision() -> str:
    """Return the newest migration of this release."""
    return max(_revisions())


@cache
def _revisions() -> frozenset[str]:
    """Return the migrations of this release.

    Migrations are numbered and a file name starts with the number, so this does not load Alembic,
    which takes 0.3 s.
    """
    files = (PROJECT_ROOT / "migrations" / "versions").glob("[0-9]*_*.py")
    return frozenset(file.name.partition("_")[0] for file in files)
