"""The errors that use cases raise.

Subjects raise subclasses of the categories below. Each has a stable `code` that clients switch on,
and a title. Only `userapi.api.problems` maps a category to an HTTP status.
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
    """The members of a problem document in addition to those of RFC 9457.

    The OpenAPI document lists them all; `errors` comes from `Invalid`.
    """

    expires_in: int
    methods: list[str]
    mfa_token: str
    acr_values: str
    max_age: int
    missing_permissions: list[str]
    permission: str
    role: str


class ServiceError(Exception):
    """Base of all errors that use cases raise."""

    code: ClassVar[str]
    title: ClassVar[str]

    def __init__(self, detail: str | None = None, **extra: Unpack[Members]) -> None:
        """`detail` is for people; `extra` are further members of the problem document."""
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.extra: Members = extra


class Malformed(ServiceError):
    """The request cannot be read, or contains a value that was tampered with."""

    code = "malformed_request"
    title = "The request cannot be read."


class Unauthenticated(ServiceError):
    """There are no credentials, or they are not valid."""

    code = "authentication_required"
    title = "Authentication is required."


class Forbidden(ServiceError):
    """The actor is known and may not do this."""

    code = "forbidden"
    title = "You are not allowed to do this."


class NotFound(ServiceError):
    """The resource does not exist, or the actor may not see it."""

    code = "not_found"
    title = "The resource does not exist."


class Conflict(ServiceError):
    """The request conflicts with the current state."""

    code = "conflict"
    title = "The request conflicts with the current state."


class Stale(ServiceError):
    """The caller's copy is older than the current state (RFC 9110, If-Match)."""

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
    """The caller must wait for `retry_after` seconds."""

    code = "rate_limited"
    title = "Too many requests."

    def __init__(self, retry_after: int, detail: str | None = None) -> None:
        super().__init__(detail)
        self.retry_after = max(1, retry_after)


class Unavailable(ServiceError):
    """A dependency does not respond; the caller can retry in `retry_after` seconds."""

    code = "service_unavailable"
    title = "The service is temporarily unavailable. Try again."

    def __init__(self, detail: str | None = None, *, retry_after: int = 2) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class OutcomeUnknown(Unavailable):
    """The database connection ended between a commit and its reply.

    Every other 503 has certainly changed nothing.
    """

    code = "outcome_unknown"
    title = "The service does not know whether this change was made. Check before you try again."


def faults_of(*checks: Callable[[], object]) -> list[FieldError]:
    """Run all checks and return all faults that they raise."""
    errors: list[FieldError] = []
    for check in checks:
        try:
            check()
        except Invalid as exc:
            errors += exc.errors
    return errors


def require_all(*checks: Callable[[], object]) -> None:
    """Run all checks and raise one `Invalid` with all their faults."""
    errors = faults_of(*checks)
    if errors:
        raise Invalid(errors)


def invalid_field(field: str, message: str, code: str = "invalid") -> Invalid:
    """Return an `Invalid` about a single field."""
    return Invalid([FieldError(field, message, code)])
