"""The tokens that a client holds."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from userapi_client.claims import unverified_claims
from userapi_client.errors import TokenRefused, Unavailable

EARLY_SECONDS = 30
RENEWED_AT = 0.8  # Fraction of the lifetime of a client token.


@dataclass(slots=True, kw_only=True)
class HeldToken:
    """An access token. Its expiry is measured by the monotonic clock of this machine."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(default=None, repr=False)
    lifetime: float | None
    received_at: float = field(default_factory=time.monotonic)
    was_accepted: bool = False

    @property
    def age(self) -> float:
        """The seconds since it was received."""
        return time.monotonic() - self.received_at

    @property
    def is_nearly_over(self) -> bool:
        """Whether a session's token expires in 30 seconds, or in half of a shorter lifetime."""
        if self.lifetime is None:
            return False
        return self.age >= self.lifetime - min(EARLY_SECONDS, self.lifetime / 2)

    @property
    def is_over(self) -> bool:
        """Whether it has expired."""
        return self.lifetime is not None and self.age >= self.lifetime

    @property
    def is_due(self) -> bool:
        """Whether a client token is old enough to be renewed."""
        return self.lifetime is not None and self.age >= RENEWED_AT * self.lifetime


def held(answer: Mapping[str, Any], *, with_refresh: bool) -> HeldToken:
    """Read a response with tokens. Raises Unavailable if it has none."""
    access, refresh = answer.get("access_token"), answer.get("refresh_token")
    lifetime = answer.get("expires_in")
    if not isinstance(access, str) or (with_refresh and not isinstance(refresh, str)):
        raise Unavailable(detail="The User Management Service sent no tokens.")
    return HeldToken(
        access_token=access,
        refresh_token=refresh if isinstance(refresh, str) else None,
        lifetime=float(lifetime) if isinstance(lifetime, int | float) else None,
    )


def given(access_token: str, refresh_token: str) -> HeldToken:
    """Return a pair from another source. Its expiry is read from the token if possible."""
    try:
        end = unverified_claims(access_token).get("exp")
    except TokenRefused:
        end = None
    lifetime = float(end) - time.time() if type(end) is int else None
    return HeldToken(access_token=access_token, refresh_token=refresh_token, lifetime=lifetime)
