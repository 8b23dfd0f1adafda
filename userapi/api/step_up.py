"""Endpoints of step-up: /api/v1/auth/step-up (RFC 9470)."""

from typing import Any

from userapi.authentication.password_check import InvalidCredentials
from userapi.factors.errors import InvalidCode, MfaNotEnabled, MfaRequired
from userapi.factors.passkey_errors import PasskeyInvalid
from userapi.lockout.service import TooManyAttempts
from userapi.passwords.hashing_pool import Busy

from .access import signed_in
from .auth import blp
from .context import current_actor, current_session, services
from .restrictions import open_to_enrollment, open_to_password_change
from .schemas.auth import Tokens
from .schemas.proofs import StepUpProof


@blp.route("/step-up", methods=["POST"])
@signed_in
@open_to_password_change
@open_to_enrollment
@blp.arguments(StepUpProof)
@blp.response(200, Tokens)
@blp.raises(
    MfaRequired,
    MfaNotEnabled,
    InvalidCredentials,
    InvalidCode,
    PasskeyInvalid,
    TooManyAttempts,
    Busy,
)
def step_up(body: dict[str, Any]) -> Any:
    """Authenticate again, so that the session is fresh (RFC 9470).

    With a second factor send a `code` of an authenticator app, a recovery code, or the `credential`
    of a passkey, otherwise the `password`. The session continues with new tokens; its former tokens
    are invalid.
    """
    use_case, own, actor = services().step_up, current_session(), current_actor()
    if "code" in body:
        return use_case.with_code(own, body["code"], actor=actor)
    if "credential" in body:
        return use_case.with_credential(own, body["credential"], actor=actor)
    return use_case.with_password(own, body["password"], actor=actor)
