"""What the session of a caller must do or prove before a view is called.

A view declares what is special about it below its guard: `@fresh`, `@fresh_with_mfa`,
`@open_to_password_change`, `@open_to_enrollment`, `@enabled_by`. The guards in `access` check it.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, TypeVar

from userapi.errors import Forbidden

from .blueprint import declare
from .context import current_actor, current_session, request_state, services
from .credentials import refuse_key

View = TypeVar("View", bound=Callable[..., Any])


class PasswordChangeRequired(Forbidden):
    """The user must set a new password before any other request."""

    code = "password_change_required"
    title = "Change your password first."


class MfaEnrollmentRequired(Forbidden):
    """A role demands a second factor, and the user must add one before any other request."""

    code = "mfa_enrollment_required"
    title = "Add a second factor first."


class FreshSession(StrEnum):
    """When a view requires a fresh session."""

    ALWAYS = "always"
    WITH_MFA = "with_mfa"


def open_to_password_change(view: View) -> View:
    """Allow the view in a session whose user must change the password."""
    view.open_to_password_change = True  # type: ignore[attr-defined]
    return view


def open_to_enrollment(view: View) -> View:
    """Allow the view in a session whose user must add a second factor."""
    view.open_to_enrollment = True  # type: ignore[attr-defined]
    return view


def fresh(view: View) -> View:
    """Require a fresh session (RFC 9470): otherwise 401, before any error about the body."""
    view.fresh_session = FreshSession.ALWAYS  # type: ignore[attr-defined]
    return view


def fresh_with_mfa(view: View) -> View:
    """Require a fresh session of users with a second factor (OWASP ASVS 5.0 7.5.1)."""
    view.fresh_session = FreshSession.WITH_MFA  # type: ignore[attr-defined]
    return view


def enabled_by(require: Callable[[], None]) -> Callable[[View], View]:
    """Call `require`, which raises Forbidden while the feature of the view is disabled.

    This follows the check of the token, if the view has one, and precedes that of the session and
    the body.
    """

    def decorate(view: View) -> View:
        view.require_enabled = require  # type: ignore[attr-defined]
        return view

    return decorate


def require_open(view: Callable[..., Any]) -> None:
    """Raise Forbidden if the feature of the view is disabled or the session is restricted.

    A required change of the password comes before a required second factor.
    """
    require_enabled(view)
    if current_actor().key_id is not None:
        return
    if current_session().must_change_password:
        if not hasattr(view, "open_to_password_change"):
            raise PasswordChangeRequired()
    elif request_state().may_only_enroll and not hasattr(view, "open_to_enrollment"):
        raise MfaEnrollmentRequired()


def require_enabled(view: Callable[..., Any]) -> None:
    """Raise Forbidden if the feature of the view is disabled."""
    require = getattr(view, "require_enabled", None)
    if require is not None:
        require()


def require_fresh(view: Callable[..., Any]) -> None:
    """Raise InsufficientUserAuthentication if the view needs a fresh session and this is none.

    An API key is never fresh: raises UserRequired, InteractiveSessionRequired.
    """
    needed = getattr(view, "fresh_session", None)
    if needed is None:
        return
    if current_actor().key_id is not None:
        refuse_key(current_actor())
    live = current_session()
    if needed is FreshSession.ALWAYS or (needed is FreshSession.WITH_MFA and live.mfa_enabled):
        services().freshness.require(live)


def declare_restrictions(view: View) -> View:
    """Declare for the OpenAPI document how a view with a session may be refused."""
    restrictions: dict[str, str] = {}
    if not hasattr(view, "open_to_password_change"):
        restrictions[PasswordChangeRequired.code] = PasswordChangeRequired.title
    if not hasattr(view, "open_to_enrollment"):
        restrictions[MfaEnrollmentRequired.code] = MfaEnrollmentRequired.title
    return declare(
        view,
        restrictions={403: restrictions} if restrictions else {},
        needs_freshness=hasattr(view, "fresh_session"),
    )
