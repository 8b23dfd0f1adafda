"""Permissions and what they imply.

A permission is `resource:action`; `resource:*` implies every action on the resource and `*`
implies all. Endpoints declare permissions, never roles.
"""

import re
from collections.abc import Iterable, Iterator
from enum import StrEnum

PERMISSION_PATTERN = re.compile(r"\*|[a-z][a-z0-9_-]{0,63}:(?:\*|[a-z][a-z0-9_-]{0,63})", re.ASCII)


class Permission(StrEnum):
    """The permissions that this service itself requires."""

    AUDIT_READ = "audit:read"
    ROLES_ASSIGN = "roles:assign"
    ROLES_MANAGE = "roles:manage"
    ROLES_READ = "roles:read"
    SERVICE_ACCOUNTS_MANAGE = "service_accounts:manage"
    SERVICE_ACCOUNTS_READ = "service_accounts:read"
    SESSIONS_READ = "sessions:read"
    SESSIONS_REVOKE = "sessions:revoke"
    STATS_READ = "stats:read"
    SYSTEM_READ = "system:read"
    TOKENS_INTROSPECT = "tokens:introspect"
    USERS_CREATE = "users:create"
    USERS_DELETE = "users:delete"
    USERS_EXPORT = "users:export"
    USERS_IMPORT = "users:import"
    USERS_READ = "users:read"
    USERS_RESET_MFA = "users:reset_mfa"
    USERS_SUSPEND = "users:suspend"
    USERS_UNLOCK = "users:unlock"
    USERS_UPDATE = "users:update"


DESCRIPTIONS: dict[Permission, str] = {
    Permission.AUDIT_READ: "Read and export the audit log.",
    Permission.ROLES_ASSIGN: "Assign roles to users and remove them.",
    Permission.ROLES_MANAGE: "Create, change and delete custom roles.",
    Permission.ROLES_READ: "Read roles and what they grant.",
    Permission.SERVICE_ACCOUNTS_MANAGE: "Manage service accounts and their API keys.",
    Permission.SERVICE_ACCOUNTS_READ: "Read service accounts and their API keys.",
    Permission.SESSIONS_READ: "Read other users' sessions.",
    Permission.SESSIONS_REVOKE: "End other users' sessions.",
    Permission.STATS_READ: "Read statistics.",
    Permission.SYSTEM_READ: "Read the state of the service's components.",
    Permission.TOKENS_INTROSPECT: "Introspect tokens (RFC 7662).",
    Permission.USERS_CREATE: "Create and invite users.",
    Permission.USERS_DELETE: "Delete users.",
    Permission.USERS_EXPORT: "Export users.",
    Permission.USERS_IMPORT: "Import users.",
    Permission.USERS_READ: "List users and read their profiles.",
    Permission.USERS_RESET_MFA: "Take away a user's second factors.",
    Permission.USERS_SUSPEND: "Suspend and activate users.",
    Permission.USERS_UNLOCK: "Unlock users after failed log-ins.",
    Permission.USERS_UPDATE: "Change users.",
}


# The permissions that count for rank.
OWN_PERMISSIONS = frozenset(str(permission) for permission in Permission)
EVERYTHING = OWN_PERMISSIONS | {"*"}


def is_permission(text: str) -> bool:
    """Return whether `text` has the form of a permission."""
    return PERMISSION_PATTERN.fullmatch(text) is not None


class PermissionSet:
    """An immutable set of permissions. Wildcards imply others."""

    __slots__ = ("_names", "_ordered")

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = frozenset(str(name) for name in names)
        self._ordered: tuple[str, ...] = tuple(sorted(self._names))

    def __contains__(self, permission: str) -> bool:
        """Return whether the permission is held, by name or by a wildcard."""
        names = self._names
        if permission in names or "*" in names:
            return True
        resource, _, _ = permission.partition(":")
        return f"{resource}:*" in names

    def __iter__(self) -> Iterator[str]:
        return iter(self._ordered)

    def __len__(self) -> int:
        return len(self._names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PermissionSet) and self._names == other._names

    def __hash__(self) -> int:
        return hash(self._names)

    def __repr__(self) -> str:
        return f"PermissionSet({list(self._ordered)!r})"

    @property
    def holds_all(self) -> bool:
        """Return whether this set implies every permission."""
        return "*" in self._names

    def __and__(self, other: "PermissionSet") -> "PermissionSet":
        """Return the permissions of each set that the other one implies."""
        return PermissionSet(
            [*(name for name in self if name in other), *(name for name in other if name in self)]
        )

    def covers(self, other: "PermissionSet") -> bool:
        """Return whether every permission of `other` is held here."""
        return all(name in self for name in other)

    def missing_from(self, other: "PermissionSet") -> tuple[str, ...]:
        """Return those of `other` that are not held here, in order."""
        return tuple(name for name in other if name not in self)

    @property
    def rank(self) -> frozenset[str]:
        """Return the permissions of this service that are held, one by one.

        A wildcard counts as the permissions that it implies. `*` is kept, because no other set
        equals it. Permissions of other services do not count.
        """
        if self.holds_all:
            return EVERYTHING
        return frozenset(p for p in OWN_PERMISSIONS if p in self)

    def outranks(self, other: "PermissionSet") -> bool:
        """Return whether this set holds all that `other` does and at least one more, or holds `*`.

        Only the permissions of this service are compared: `media:upload` gives no rank.
        """
        return self.holds_all or self.rank > other.rank


NO_PERMISSIONS = PermissionSet()
