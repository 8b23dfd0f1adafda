"""What an endpoint requires of its caller; shared by the integrations."""

import time
from dataclasses import dataclass

from userapi_client.principal import Principal, require_authentication


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """Permissions, and how recent and strong the authentication of the caller must be."""

    permissions: tuple[str, ...]
    fresh: bool = False
    """Whether the service is always queried."""
    max_age: float | None = None
    """The maximum number of seconds since the caller authenticated."""
    acr: str | None = None
    """The level of authentication, such as `aal2`."""

    def __post_init__(self) -> None:
        given: tuple[object, ...] = self.permissions
        for permission in given:
            if not isinstance(permission, str) or not (":" in permission or permission == "*"):
                raise TypeError("Call it with permissions, such as required('media:read').")

    def check(self, principal: Principal) -> None:
        """Raise PermissionDenied, TokenRefused or Unavailable if the caller does not meet it."""
        principal.require(*self.permissions)
        require_authentication(principal, max_age=self.max_age, acr=self.acr, now=time.time())
