"""The result of each row of an import."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from userapi.errors import FieldError, Invalid, ServiceError


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """The result of one row: `created`, `error`, or `skipped` if the user exists already.

    In a dry run `created` rows have no id.
    """

    row: int
    status: str
    id: UUID | None = None
    code: str | None = None
    errors: Sequence[FieldError] = ()


def rejected(row: int, error: ServiceError) -> ImportResult:
    """Return the result of a row that was rejected with this error."""
    errors = error.errors if isinstance(error, Invalid) else ()
    return ImportResult(row=row, status="error", code=error.code, errors=errors)
