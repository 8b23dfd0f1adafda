"""Endpoints of passkeys: adding them, and the options of every use (WebAuthn Level 3)."""

from typing import Any

from flask import Response

from userapi.authentication.log_in import AccountPending, AccountSuspended
from userapi.factors.errors import MfaMethodUnavailable, MfaTokenInvalid, TooManyFactors
from userapi.factors.passkey_errors import (
    PasskeyInvalid,
    PasskeyRejected,
    PasskeysDisabled,
    PasskeyTaken,
    PasskeyUnknown,
)
from userapi.passwords.hashing_pool import Busy

from .access import public, signed_in
from .auth import blp
from .context import current_actor, current_session, services
from .mfa import added_factor
from .responses import as_json
from .restrictions import enabled_by, fresh, open_to_enrollment, open_to_password_change
from .schemas.auth import LoginResult
from .schemas.mfa import AddedFactorAnswer
from .schemas.passkeys import NoMembers, PasskeyAddition, PasskeyOptions, PasskeySignIn
from .schemas.proofs import MfaToken


def _require_passkeys() -> None:
    services().passkey_registration.require_available()


def _require_passkey_sign_in() -> None:
    services().passkey_sign_in.require_available()


@blp.route("/login/passkey/options", methods=["POST"])
@public
@enabled_by(_require_passkey_sign_in)
@blp.arguments(NoMembers, required=False)
@blp.response(200, PasskeyOptions)
@blp.raises(PasskeysDisabled)
def login_passkey_options(_body: dict[str, Any]) -> Response:
    """Get the options to log in with a passkey, the same for everyone. Nothing is stored."""
    return as_json(services().passkey_sign_in.options())


@blp.route("/login/passkey", methods=["POST"])
@public
@enabled_by(_require_passkey_sign_in)
@blp.arguments(PasskeySignIn)
@blp.response(200, LoginResult)
@blp.raises(PasskeysDisabled, PasskeyUnknown, PasskeyInvalid, AccountSuspended, AccountPending)
def login_passkey(body: dict[str, Any]) -> Any:
    """Log in with a passkey, without a user name or password."""
    return services().passkey_sign_in.with_credential(
        body["credential"], remember_me=body.get("remember_me", False), actor=current_actor()
    )


@blp.route("/login/mfa/options", methods=["POST"])
@public
@blp.arguments(MfaToken)
@blp.response(200, PasskeyOptions)
@blp.raises(MfaTokenInvalid, MfaMethodUnavailable)
def login_mfa_options(body: dict[str, Any]) -> Response:
    """Get the options to complete a log-in with a passkey. It does not use up an attempt."""
    return as_json(services().second_step.passkey_options(body["mfa_token"]))


@blp.route("/step-up/options", methods=["POST"])
@signed_in
@open_to_password_change
@open_to_enrollment
@blp.arguments(NoMembers, required=False)
@blp.response(200, PasskeyOptions)
@blp.raises(MfaMethodUnavailable)
def step_up_options(_body: dict[str, Any]) -> Response:
    """Get the options to prove the identity of the signed-in user again with a passkey."""
    return as_json(services().step_up.passkey_options(current_session()))


@blp.route("/passkeys/options", methods=["POST"])
@signed_in
@enabled_by(_require_passkeys)
@fresh
@open_to_enrollment
@blp.arguments(NoMembers, required=False)
@blp.response(200, PasskeyOptions)
@blp.raises(PasskeysDisabled, TooManyFactors)
def passkey_options(_body: dict[str, Any]) -> Response:
    """Get the options of a new passkey, which are valid for this session only."""
    live = current_session()
    return as_json(
        services().passkey_registration.options(live.user_id, session_id=live.session_id)
    )


@blp.route("/passkeys", methods=["POST"])
@signed_in
@enabled_by(_require_passkeys)
@open_to_enrollment
@blp.arguments(PasskeyAddition)
@blp.response(201, AddedFactorAnswer)
@blp.raises(PasskeysDisabled, PasskeyRejected, PasskeyTaken, TooManyFactors, Busy)
def add_passkey(body: dict[str, Any]) -> Any:
    """Add a passkey.

    This session continues with new tokens. With the first factor come recovery codes, and all other
    sessions end.
    """
    added = services().passkey_enrollment.add(
        current_session(), body["credential"], name=body.get("name"), actor=current_actor()
    )
    return added_factor(added)
