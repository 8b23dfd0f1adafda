"""Errors of accounts, and the unique constraints that cause them."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import IntegrityError

from userapi.errors import Conflict, Forbidden, NotFound, ServiceError
from userapi.infrastructure.database import violated_constraint


class UserNotFound(NotFound):
    """No user has this id, name or address."""

    title = "This user does not exist."


class UsernameTaken(Conflict):
    """Another user has this name."""

    code = "username_taken"
    title = "This user name is taken."


class EmailTaken(Conflict):
    """Another user has this address."""

    code = "email_taken"
    title = "This e-mail address is in use."


class InvalidStatusTransition(Conflict):
    """The account cannot change from its status to the requested one."""

    code = "invalid_status_transition"
    title = "The account cannot change to this status."


class SelfActionRefused(Conflict):
    """Administrators cannot suspend or delete their own account."""

    code = "self_action_refused"
    title = "You cannot do this to your own account."


class RegistrationDisabled(Forbidden):
    """The operator has disabled registration."""

    code = "registration_disabled"
    title = "Registration is closed."


_ERROR_OF: dict[str | None, type[ServiceError]] = {
    "uq_users_email_normalized": EmailTaken,
    "uq_users_username": UsernameTaken,
}


@contextmanager
def translated_conflicts() -> Iterator[None]:
    """Raise UsernameTaken or EmailTaken when a statement violates a unique constraint of users."""
    try:
        yield
    except IntegrityError as exc:
        error = _ERROR_OF.get(violated_constraint(exc))
        if error is None:
            raise
        raise error() from exc
