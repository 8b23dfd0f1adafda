"""Endpoints of authentication: /api/v1/auth."""

from typing import Any

import orjson
from flask import Response

from userapi.accounts.errors import EmailTaken, RegistrationDisabled, UsernameTaken
from userapi.accounts.views import UserView
from userapi.authentication.log_in import AccountPending, AccountSuspended
from userapi.authentication.password_check import InvalidCredentials
from userapi.authentication.refresh import RefreshTokenReused
from userapi.authentication.refusals import TokenExpired, TokenInvalid, TokenRevoked
from userapi.factors.errors import MfaRequired
from userapi.lockout.service import TooManyAttempts
from userapi.machines.models import OwnerType
from userapi.machines.status import LiveKey
from userapi.passwords.hashing_pool import Busy
from userapi.passwords.one_time_tokens import InvalidToken
from userapi.sessions.status import LiveSession

from .access import identified, public, signed_in, token_holder
from .blueprint import Blueprint
from .context import (
    credential_expiry,
    current_actor,
    current_caller,
    current_claims,
    current_session,
    request_state,
    services,
)
from .credentials import Credentials
from .idempotency import IDEMPOTENCY_ERRORS, idempotent
from .responses import as_json, user_response
from .restrictions import fresh_with_mfa, open_to_enrollment
from .schemas.auth import (
    Accepted,
    EmailChange,
    EmailVerification,
    Login,
    LoginResult,
    Logout,
    Myself,
    PasswordResetRequest,
    Refresh,
    Tokens,
    Verified,
)
from .schemas.users import Registration, User
from .users import new_user

blp = Blueprint(
    "auth",
    __name__,
    url_prefix="/api/v1/auth",
    description="Sign up, log in, log out; tokens, sessions, password and address of the caller.",
)


def _registered(view: UserView | None) -> Response:
    if view is None:
        return Response('{"status":"pending"}', 202, mimetype="application/json")
    return user_response(view, 201)


@blp.route("/register", methods=["POST"])
@public
@blp.arguments(Registration)
@blp.response(201, User)
@blp.raises(
    RegistrationDisabled,
    UsernameTaken,
    EmailTaken,
    Busy,
    *IDEMPOTENCY_ERRORS,
)
@idempotent(_registered)
def register(body: dict[str, Any], *, idempotency: Any) -> None:
    """Register a new account.

    If the service verifies addresses, the response is 202 for new and for taken addresses, and the
    account is pending until its owner opens the link in a mail.
    """
    services().registration.register(new_user(body), actor=current_actor(), idempotency=idempotency)


@blp.route("/login", methods=["POST"])
@public
@blp.arguments(Login)
@blp.response(200, LoginResult)
@blp.raises(
    InvalidCredentials, AccountSuspended, AccountPending, MfaRequired, TooManyAttempts, Busy
)
def login(body: dict[str, Any]) -> Any:
    """Log in with a user name or e-mail address.

    An account with a second factor gets 403 `mfa_required` with an `mfa_token`, which
    `/auth/login/mfa` accepts with a code.
    """
    return services().log_in.with_password(
        body["username"],
        body["password"],
        remember_me=body.get("remember_me", False),
        actor=current_actor(),
    )


@blp.route("/refresh", methods=["POST"])
@public
@blp.arguments(Refresh)
@blp.response(200, Tokens)
@blp.raises(TokenInvalid, TokenExpired, TokenRevoked, RefreshTokenReused)
def refresh(body: dict[str, Any]) -> Any:
    """Exchange a refresh token for a new pair of tokens."""
    return services().refresh.exchange(body["refresh_token"], actor=current_actor())


@blp.route("/logout", methods=["POST"])
@token_holder
@blp.arguments(Logout, required=False)
@blp.response(204)
def logout(body: dict[str, Any]) -> None:
    """End the session of this token, or every session of its user. Can be repeated."""
    services().log_out.end(
        current_claims(), all_sessions=body.get("all_sessions", False), actor=current_actor()
    )


@blp.route("/me", methods=["GET"])
@identified(Credentials.ANY)
@open_to_enrollment
@blp.response(200, Myself)
def me() -> Any:
    """Get the caller and their permissions.

    A service has no address and no profile: `username` is its name.
    """
    caller, actor = current_caller(), current_actor()
    return as_json(
        {
            **_profile_of(caller),
            "actor_type": actor.type,
            "permissions": list(actor.permissions),
            "session_id": actor.session_id,
            "key_id": actor.key_id,
            **_authentication_of(caller),
            **_enrollment_of(caller),
        }
    )


def _profile_of(caller: LiveSession | LiveKey) -> dict[str, Any]:
    if isinstance(caller, LiveSession):
        if caller.profile is not None:
            profile: dict[str, Any] = orjson.loads(caller.profile.text)
            return profile
        return services().accounts.get(caller.user_id).public
    if caller.owner_type is OwnerType.USER:
        return services().accounts.get(caller.owner_id).public
    return {"id": caller.owner_id, "username": caller.owner_name, "roles": caller.roles}


def _authentication_of(caller: LiveSession | LiveKey) -> dict[str, Any]:
    """Return how the user of a session was authenticated; nothing for a key."""
    if not isinstance(caller, LiveSession):
        return {}
    return {
        "acr": caller.authentication.acr,
        "amr": caller.authentication.amr,
        "authenticated_at": caller.authentication.authenticated_at,
    }


def _enrollment_of(caller: LiveSession | LiveKey) -> dict[str, Any]:
    if not isinstance(caller, LiveSession):
        return {}
    return {"mfa_enrollment_required": request_state().may_only_enroll}


@blp.route("/verify", methods=["GET"])
@identified(Credentials.ANY)
@open_to_enrollment
@blp.response(200, Verified)
def verify() -> Any:
    """Check that this token or API key is valid, and get its permissions."""
    caller, actor = current_caller(), current_actor()
    return as_json(
        {
            "active": True,
            "user_id": actor.id,
            "actor_type": actor.type,
            "session_id": actor.session_id,
            "key_id": actor.key_id,
            # A session that may only add a factor has no roles, here and in its tokens.
            "roles": () if request_state().may_only_enroll else caller.roles,
            "permissions": list(actor.permissions),
            "expires_at": credential_expiry(),
            **_authentication_of(caller),
        }
    )


@blp.route("/verify-email", methods=["POST"])
@public
@blp.arguments(EmailVerification)
@blp.response(204)
@blp.raises(InvalidToken, EmailTaken)
def verify_email(body: dict[str, Any]) -> None:
    """Verify an e-mail address with the token of a mail."""
    services().email_verification.confirm(body["token"], actor=current_actor())


@blp.route("/verify-email/resend", methods=["POST"])
@public
@blp.arguments(PasswordResetRequest)
@blp.response(202, Accepted)
def resend_verification(body: dict[str, Any]) -> Any:
    """Request another mail to verify an address. The response is the same for every address."""
    services().email_verification.resend(body["email"], actor=current_actor())
    return {}


@blp.route("/change-email", methods=["POST"])
@signed_in
@fresh_with_mfa
@blp.arguments(EmailChange)
@blp.response(202, Accepted)
@blp.raises(InvalidCredentials, TooManyAttempts, Busy)
def change_email(body: dict[str, Any]) -> Any:
    """Request a change of the e-mail address.

    The change needs a confirmation from the new address. The old address is notified by mail.
    """
    services().email_change.request(
        current_session().user_id,
        body["new_email"],
        current_password=body["current_password"],
        actor=current_actor(),
    )
    return {}
