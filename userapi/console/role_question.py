"""The effect of a change of a role on the users who have it, before it is saved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from userapi.api.context import services
from userapi.permissions import PermissionSet
from userapi.roles.service import RoleView


@dataclass(frozen=True, slots=True, kw_only=True)
class Consequences:
    """What the users of some roles gain and lose."""

    added: Sequence[str]
    removed: Sequence[str]
    roles: Sequence[RoleView]


def consequences(role: RoleView, changes: Mapping[str, Any]) -> Consequences | None:
    """Return what the users of a role, and of roles that inherit from it, gain and lose.

    None if the role grants the same as before, if no user has one of these roles, or for a built-in
    role, which cannot be changed.
    """
    if role.builtin:
        return None
    graph = services().roles.graph()
    before = graph.effective([role.name])
    inherited = graph.effective(changes.get("parents", role.parents))
    after = PermissionSet([*changes.get("permissions", role.permissions), *inherited])
    concerned = [
        other
        for other in services().roles.all()
        if other.user_count and graph.includes_any([other.name], {role.name})
    ]
    found = Consequences(
        added=before.missing_from(after), removed=after.missing_from(before), roles=concerned
    )
    return found if concerned and (found.added or found.removed) else None
