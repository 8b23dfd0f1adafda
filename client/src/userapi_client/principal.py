"""Who calls, and what they may do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from userapi_client.errors import FreshAuthenticationRequired, PermissionDenied, TokenRefused
from userapi_client.permissions import Permissions

# From weak to strong.
AUTHENTICATION_LEVELS = ("aal1", "aal2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A caller: a person or a service."""

    id: str
    type: Literal["user", "service"]
    username: str | None
    """None if only the token was read: it does not contain the name."""
    roles: tuple[str, ...]
    permissions: Permissions
    session_id: str | None
    """None for a key and for a service."""
    key_id: str | None
    authenticated_at: datetime | None
    acr: str | None
    expires_at: datetime | None
    """None for a key that does not expire."""
    checked: Literal["signature", "events", "service"]
    """What was checked: the token alone, the token and events, or the service."""
    claims: Mapping[str, Any] = field(hash=False, repr=False)

    def can(self, *wanted: str) -> bool:
        """Return whether the caller holds all of these permissions.

        Raises Unavailable if the token omits its permissions and the service is unavailable.
        """
        return self.permissions.covers(wanted)

    def require(self, *wanted: str) -> None:
        """Raise PermissionDenied with the first of these permissions that the caller lacks."""
        for permission in wanted:
            if permission not in self.permissions:
                raise PermissionDenied(permission)


def require_authentication(
    principal: Principal, *, max_age: float | None, acr: str | None, now: float
) -> None:
    """Require that the caller has authenticated within `max_age` seconds, at level `acr`.

    Raises FreshAuthenticationRequired for a session, and TokenRefused with 403 for keys and
    services, which cannot repeat an authentication.
    """
    if max_age is None and acr is None:
        return
    if principal.type == "service":
        raise TokenRefused("user_required", 403)
    if principal.session_id is None:
        raise TokenRefused("interactive_session_required", 403)
    since = principal.authenticated_at
    is_old = max_age is not None and (
        since is None or now - since.astimezone(UTC).timestamp() > max_age
    )
    is_weak = acr is not None and not _reaches(principal.acr, acr)
    if is_old or is_weak:
        raise FreshAuthenticationRequired(
            max_age=None if max_age is None else int(max_age), acr=acr if is_weak else None
        )


def _reaches(held: str | None, wanted: str) -> bool:
    held = held or AUTHENTICATION_LEVELS[0]
    if held in AUTHENTICATION_LEVELS and wanted in AUTHENTICATION_LEVELS:
        return AUTHENTICATION_LEVELS.index(held) >= AUTHENTICATION_LEVELS.index(wanted)
    return held == wanted
