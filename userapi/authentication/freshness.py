"""Freshness: whether a session proved its user's identity recently and strongly enough (RFC 9470).

Sensitive operations need a fresh session, and so does the use of STEP_UP_PERMISSIONS. A step-up
makes a session fresh again.
"""

from collections.abc import Callable, Collection
from datetime import timedelta

from userapi.actor import InsufficientUserAuthentication, WithheldPermissions
from userapi.clock import Clock
from userapi.errors import Forbidden
from userapi.permissions import PermissionSet
from userapi.sessions.authentication_level import Level
from userapi.sessions.status import LiveSession


class Freshness:
    """Decides which sessions are fresh."""

    def __init__(
        self, clock: Clock, *, max_age_seconds: int, step_up_permissions: Collection[str]
    ) -> None:
        self._clock = clock
        self._max_age_seconds = max_age_seconds
        self._step_up_permissions = PermissionSet(step_up_permissions)

    def require(self, live: LiveSession) -> None:
        """Raise InsufficientUserAuthentication unless the session is fresh."""
        shortfall = self.shortfall(live)
        if shortfall is not None:
            raise shortfall

    def shortfall(self, live: LiveSession) -> InsufficientUserAuthentication | None:
        """Return what the session lacks; None if it is fresh.

        A user with a second factor must have used one in this session.
        """
        proof = live.authentication
        is_too_weak = live.mfa_enabled and proof.acr != Level.AAL2
        age = self._clock.now() - proof.authenticated_at
        if not is_too_weak and age <= timedelta(seconds=self._max_age_seconds):
            return None
        return InsufficientUserAuthentication(
            max_age=self._max_age_seconds, acr_values=Level.AAL2 if is_too_weak else None
        )

    def withheld(self, live: LiveSession) -> WithheldPermissions | None:
        """Return the permissions that the session may not use before a step-up, if any."""
        if not len(self._step_up_permissions):
            return None
        shortfall = self.shortfall(live)
        if shortfall is None:
            return None
        return WithheldPermissions(self._step_up_permissions, shortfall)

    def withheld_from_key(self, refusal: Callable[[], Forbidden]) -> WithheldPermissions | None:
        """Return the permissions that an API key may never use, if any: it is never fresh.

        `refusal` returns the error for their use.
        """
        if not len(self._step_up_permissions):
            return None
        return WithheldPermissions(self._step_up_permissions, refusal())
