"""What can go wrong, in the words of the domain.

Subjects raise leaves of the categories below. A leaf has a stable `code` that clients switch on
and a title; it knows nothing about HTTP. `userapi.api.problems` alone turns a category into a
status.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypedDict, Unpack


@dataclass(frozen=True, slots=True)
class FieldError:
    """One rule that one field broke; `field` is a dotted path into the request."""

    field: str
    message: str
    code: str = "invalid"


class Members(TypedDict, total=False):
    """The members that an answer may carry beside those of RFC 9457. The OpenAPI document has them
    all; `errors` comes from `Invalid`.
    """

    missing_permissions: list[str]
    permission: str
    role: str


class ServiceError(Exception):
    """Base of everything that the service refuses on purpose."""

    code: ClassVar[str]
    title: ClassVar[str]

    def __init__(self, detail: str | None = None, **extra: Unpack[Members]) -> None:
        """`detail` is for people; `extra` are members that the answer carries beside it."""
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.extra: Members = extra


class Malformed(ServiceError):
    """The request cannot be read at all, or carries a value that was tampered with."""

    code = "malformed_request"
    title = "The request cannot be read."


class Unauthenticated(ServiceError):
    """Nobody is signed in, or what was shown proves nothing."""

    code = "authentication_required"
    title = "Authentication is required."


class Forbidden(ServiceError):
    """The actor is known and may not do this."""

    code = "forbidden"
    title = "You are not allowed to do this."


class NotFound(ServiceError):
    """There is no such thing, or none that the actor may see."""

    code = "not_found"
    title = "The resource does not exist."


class Conflict(ServiceError):
    """The request conflicts with the current state."""

    code = "conflict"
    title = "The request conflicts with the current state."


class Stale(ServiceError):
    """The caller's copy is older than the present state (RFC 9110, If-Match)."""

    code = "stale_resource"
    title = "The resource has changed since it was read."


class Invalid(ServiceError):
    """Fields of the request break rules; `errors` holds every broken rule."""

    code = "validation_failed"
    title = "Some fields are invalid."

    def __init__(self, errors: Sequence[FieldError] = (), detail: str | None = None) -> None:
        super().__init__(detail)
        self.errors = tuple(errors)


class TooMany(ServiceError):
    """The caller has to wait for `retry_after` seconds."""

    code = "rate_limited"
    title = "Too many requests."

    def __init__(self, retry_after: int, detail: str | None = None) -> None:
        super().__init__(detail)
        self.retry_after = max(1, retry_after)


class Unavailable(ServiceError):
    """Something that is needed does not answer now; worth a retry in `retry_after` seconds."""

    code = "service_unavailable"
    title = "The service is temporarily unavailable. Try again."

    def __init__(self, detail: str | None = None, *, retry_after: int = 2) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


def faults_of(*checks: Callable[[], object]) -> list[FieldError]:
    """Run all checks and return everything that they found."""
    errors: list[FieldError] = []
    for check in checks:
        try:
            check()
        except Invalid as exc:
            errors += exc.errors
    return errors


def require_all(*checks: Callable[[], object]) -> None:
    """Run all checks and raise one `Invalid` with everything that they found."""
    errors = faults_of(*checks)
    if errors:
        raise Invalid(errors)


def invalid_field(field: str, message: str, code: str = "invalid") -> Invalid:
    """Return an `Invalid` about a single field."""
    return Invalid([FieldError(field, message, code)])
