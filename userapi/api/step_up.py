"""Endpoints of step-up: /api/v1/auth/step-up (RFC 9470)."""

from typing import Any

from userapi.authentication.password_check import InvalidCredentials
from userapi.factors.errors import MfaRequired
from userapi.lockout.service import TooManyAttempts
from userapi.passwords.hashing_pool import Busy

from .access import signed_in
from .auth import blp
from .context import current_actor, current_session, services
from .restrictions import open_to_enrollment, open_to_password_change
from .schemas.auth import StepUpProof, Tokens


@blp.route("/step-up", methods=["POST"])
@signed_in
@open_to_password_change
@open_to_enrollment
@blp.arguments(StepUpProof)
@blp.response(200, Tokens)
@blp.raises(MfaRequired, InvalidCredentials, TooManyAttempts, Busy)
def step_up(body: dict[str, Any]) -> Any:
    """Authenticate again, so that the session is fresh (RFC 9470).

    The session continues with new tokens; its former tokens are dead.
    """
    return services().step_up.with_password(
        current_session(), body["password"], actor=current_actor()
    )
