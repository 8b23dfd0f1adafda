"""Who acts. Use cases receive an actor instead of a request, so they work the same for the API, the
command line and the worker.
"""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from userapi.errors import Forbidden, NotFound, Unauthenticated
from userapi.permissions import NO_PERMISSIONS, PermissionSet


class PermissionDenied(Forbidden):
    """The actor lacks a permission; the response names it."""

    code = "permission_denied"
    title = "You do not have the required permission."

    def __init__(self, permission: str) -> None:
        super().__init__(f"This needs the permission {permission}.", permission=str(permission))
        self.permission = str(permission)


class Concealed(NotFound):
    """The actor lacks the permission to know whether the resource exists.

    The response is the same as for a resource that does not exist; the audit log names the
    permission.
    """

    def __init__(self, permission: str) -> None:
        super().__init__()
        self.permission = str(permission)


class InsufficientUserAuthentication(Unauthenticated):
    """The session is not fresh. The token stays valid; a step-up is needed (RFC 9470 §3)."""

    code = "insufficient_user_authentication"
    title = "A more recent or stronger authentication is required."

    def __init__(self, *, max_age: int, acr_values: str | None) -> None:
        """`max_age` is in seconds; `acr_values` is the level that the session lacks, if any."""
        if acr_values is None:
            super().__init__(max_age=max_age)
        else:
            super().__init__(max_age=max_age, acr_values=acr_values)
        self.max_age = max_age
        self.acr_values = acr_values


@dataclass(frozen=True, slots=True)
class WithheldPermissions:
    """Permissions that an actor holds but may not use before a step-up, and the error for them."""

    permissions: PermissionSet
    refusal: InsufficientUserAuthentication | Forbidden


class ActorType(StrEnum):
    """The kinds of actors."""

    ANONYMOUS = "anonymous"
    SERVICE = "service"
    SYSTEM = "system"
    USER = "user"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who acts, from where, and in which request."""

    type: ActorType = ActorType.ANONYMOUS
    id: UUID | None = None
    username: str | None = None
    session_id: UUID | None = None
    key_id: UUID | None = None
    """The API key of the request, or the one that its client token was issued for."""
    key_permissions: frozenset[str] | None = None
    """The permissions in the list of this key, as written; None without a key or a list."""
    permissions: PermissionSet = NO_PERMISSIONS
    withheld: WithheldPermissions | None = None
    ip_address: str | None = None
    user_agent: str | None = None
    correlation_id: str | None = None
    traceparent: str | None = None

    def is_user(self, user_id: UUID) -> bool:
        """Return whether this actor is the user with that id."""
        return self.type is ActorType.USER and self.id == user_id

    def is_session_of(self, user_id: UUID) -> bool:
        """Return whether this actor is the user in a session, and not one of the user's API keys.

        A key needs a permission for changes that users may make to their own account without one.
        """
        return self.is_user(user_id) and self.key_id is None

    def require(self, permission: str) -> None:
        """Raise PermissionDenied unless this actor holds the permission.

        Raises what `require_step_up` raises if its use needs a step-up.
        """
        if permission not in self.permissions:
            raise PermissionDenied(permission)
        self.require_step_up(permission)

    def require_step_up(self, permission: str) -> None:
        """Raise InsufficientUserAuthentication if the use of a permission needs a step-up.

        An API key cannot perform one: raises a subclass of Forbidden that says who can.
        """
        if self.withheld is not None and permission in self.withheld.permissions:
            raise self.withheld.refusal


def system_actor(name: str, *, correlation_id: str | None = None) -> Actor:
    """Return the actor of a command or of the worker, which has every permission."""
    return Actor(
        type=ActorType.SYSTEM,
        username=name,
        permissions=PermissionSet(["*"]),
        correlation_id=correlation_id,
    )
