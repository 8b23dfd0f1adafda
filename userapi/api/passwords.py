"""Endpoints of passwords: /api/v1/auth/change-password, /password-strength and /reset-password."""

from dataclasses import asdict
from typing import Any

from userapi.authentication.password_check import InvalidCredentials
from userapi.lockout.service import TooManyAttempts
from userapi.passwords.hashing_pool import Busy
from userapi.passwords.one_time_tokens import InvalidToken

from .access import public, signed_in
from .auth import blp
from .context import current_actor, current_session, services
from .restrictions import fresh_with_mfa, open_to_password_change
from .schemas.auth import (
    Accepted,
    PasswordChange,
    PasswordQuestion,
    PasswordResetConfirmation,
    PasswordResetRequest,
    PasswordStrength,
    Tokens,
)


@blp.route("/change-password", methods=["POST"])
@signed_in
@fresh_with_mfa
@open_to_password_change
@blp.arguments(PasswordChange)
@blp.response(200, Tokens)
@blp.raises(InvalidCredentials, TooManyAttempts, Busy)
def change_password(body: dict[str, Any]) -> Any:
    """Set a new password. This session continues with new tokens; all others end."""
    return services().password_change.change(
        current_session(),
        current=body["current_password"],
        new=body["new_password"],
        actor=current_actor(),
    )


@blp.route("/password-strength", methods=["POST"])
@public
@blp.arguments(PasswordQuestion)
@blp.response(200, PasswordStrength)
def password_strength(body: dict[str, Any]) -> Any:
    """Estimate the strength of a password. Nothing is stored or logged."""
    return asdict(
        services().policy.strength(
            body["password"], username=body.get("username"), email=body.get("email")
        )
    )


@blp.route("/reset-password", methods=["POST"])
@public
@blp.arguments(PasswordResetRequest)
@blp.response(202, Accepted)
def request_password_reset(body: dict[str, Any]) -> Any:
    """Request a mail to set a new password. The response is the same for every address."""
    services().recovery.request_reset(body["email"], actor=current_actor())
    return {}


@blp.route("/reset-password/confirm", methods=["POST"])
@public
@blp.arguments(PasswordResetConfirmation)
@blp.response(204)
@blp.raises(InvalidToken, Busy)
def confirm_password_reset(body: dict[str, Any]) -> None:
    """Set a new password with the token of a mail. Every session ends.

    The user's API keys are revoked unless `revoke_api_keys` is false.
    """
    services().recovery.confirm_reset(
        body["token"],
        body["new_password"],
        actor=current_actor(),
        revoke_api_keys=body.get("revoke_api_keys", True),
    )
