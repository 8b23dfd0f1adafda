"""The events that other services consume: their types and their `data`."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID


class EventType(StrEnum):
    """The event types, which are also the routing keys, in alphabetical order."""

    API_KEY_CREATED = "api_key.created"
    API_KEY_EXPIRING = "api_key.expiring"
    API_KEY_REVOKED = "api_key.revoked"
    API_KEY_ROTATED = "api_key.rotated"
    ROLE_CREATED = "role.created"
    ROLE_DELETED = "role.deleted"
    ROLE_UPDATED = "role.updated"
    SERVICE_ACCOUNT_ACTIVATED = "service_account.activated"
    SERVICE_ACCOUNT_CREATED = "service_account.created"
    SERVICE_ACCOUNT_DELETED = "service_account.deleted"
    SERVICE_ACCOUNT_ROLES_CHANGED = "service_account.roles_changed"
    SERVICE_ACCOUNT_SUSPENDED = "service_account.suspended"
    SERVICE_ACCOUNT_UPDATED = "service_account.updated"
    SESSION_CREATED = "session.created"
    SESSION_REUSE_DETECTED = "session.reuse_detected"
    SESSION_REVOKED = "session.revoked"
    USER_ACTIVATED = "user.activated"
    USER_CREATED = "user.created"
    USER_DELETED = "user.deleted"
    USER_EMAIL_CHANGED = "user.email_changed"
    USER_EMAIL_VERIFIED = "user.email_verified"
    USER_LOCKED = "user.locked"
    USER_MFA_DISABLED = "user.mfa_disabled"
    USER_MFA_ENABLED = "user.mfa_enabled"
    USER_PASSWORD_CHANGED = "user.password_changed"
    USER_REGISTERED = "user.registered"
    USER_ROLES_CHANGED = "user.roles_changed"
    USER_SUSPENDED = "user.suspended"
    USER_UNLOCKED = "user.unlocked"
    USER_UPDATED = "user.updated"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserFacts:
    """The public data of a user in events; no secrets."""

    id: UUID
    username: str
    email: str
    status: str
    roles: Sequence[str]


class Event(Protocol):
    """A change that is published to other services."""

    @property
    def type(self) -> EventType:
        """Return the type, which is the routing key."""
        ...

    @property
    def subject(self) -> str:
        """Return the id of the subject; events of one subject are published in order."""
        ...

    def data(self) -> dict[str, Any]:
        """Return the CloudEvents `data`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class UserEvent:
    """An event about a user. `changed` names the fields of an update; a few have a reason."""

    type: EventType
    user: UserFacts
    changed: Sequence[str] = ()
    reason: str | None = None

    @property
    def subject(self) -> str:
        """Return the user's id."""
        return str(self.user.id)

    def data(self) -> dict[str, Any]:
        """Return the user's facts and, for updates, the names of what changed."""
        data = _facts(self.user)
        if self.changed:
            data["changed"] = sorted(self.changed)
        if self.reason:
            data["reason"] = self.reason
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEvent:
    """An event about a session of a user: why it ended, or how its user was authenticated."""

    type: EventType
    user: UserFacts
    session_id: UUID
    reason: str | None = None
    acr: str | None = None
    amr: Sequence[str] = ()

    @property
    def subject(self) -> str:
        """Return the user's id, so that events of sessions keep their order with the user's."""
        return str(self.user.id)

    def data(self) -> dict[str, Any]:
        """Return the user's facts, the session, and what is known about its end or its start."""
        data = _facts(self.user) | {"session_id": str(self.session_id)}
        if self.reason:
            data["reason"] = self.reason
        if self.acr:
            data |= {"acr": self.acr, "amr": sorted(self.amr)}
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleEvent:
    """An event about a role. `changed` names the fields of an update."""

    type: EventType
    name: str
    permissions: Sequence[str]
    parents: Sequence[str]
    changed: Sequence[str] = ()

    @property
    def subject(self) -> str:
        """Return the role's name."""
        return self.name

    def data(self) -> dict[str, Any]:
        """Return the role's permissions and parents."""
        data: dict[str, Any] = {
            "name": self.name,
            "permissions": sorted(self.permissions),
            "parents": sorted(self.parents),
        }
        if self.changed:
            data["changed"] = sorted(self.changed)
        return data


def _facts(user: UserFacts) -> dict[str, Any]:
    return {
        "user_id": str(user.id),
        "username": user.username,
        "email": user.email,
        "status": str(user.status),
        "roles": sorted(user.roles),
    }
