"""The demand for a second factor by role: what a user who has none may do.

Such a user can sign in, but only to add a factor. A session in which a factor took part is never
restricted, however its user has signed in.
"""

from collections.abc import Collection, Sequence
from typing import Protocol

from userapi.roles.graph import RoleGraph
from userapi.sessions.authentication_level import Authentication, Level


class SessionUser(Protocol):
    """A user, as far as it restricts what their sessions may do."""

    @property
    def roles(self) -> Sequence[str]: ...

    @property
    def must_change_password(self) -> bool: ...

    @property
    def mfa_enabled(self) -> bool: ...


class MfaEnforcement:
    """Decides who must have a second factor (MFA_REQUIRED_ROLES)."""

    def __init__(self, demanding_roles: Collection[str]) -> None:
        self._demanding = frozenset(demanding_roles)

    def demands(self, role_names: Collection[str], graph: RoleGraph) -> bool:
        """Return whether one of these roles, or a role it inherits from, demands a factor."""
        return bool(self._demanding) and graph.includes_any(role_names, self._demanding)

    def may_only_enroll(
        self, authentication: Authentication, user: SessionUser, graph: RoleGraph
    ) -> bool:
        """Return whether a session may do nothing but add the user's first factor."""
        return (
            authentication.acr == Level.AAL1
            and not user.mfa_enabled
            and self.demands(user.roles, graph)
        )

    def is_restricted(
        self, authentication: Authentication, user: SessionUser, graph: RoleGraph
    ) -> bool:
        """Return whether a session may only add a factor, or only change its user's password.

        It has no roles and no permissions, here and in its tokens: other services would grant
        access by them.
        """
        return user.must_change_password or self.may_only_enroll(authentication, user, graph)
