"""The graph of roles: what each role names, and what it inherits."""

from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.orm import Session, aliased

from userapi.infrastructure.database import table_of
from userapi.permissions import PermissionSet
from userapi.roles.models import Role, RoleCatalogue, RoleParent

# Combinations of roles whose permissions are cached.
MAX_COMBINATIONS = 10_000

_roles = table_of(Role)
_parents = table_of(RoleParent)
_catalogue = table_of(RoleCatalogue)


class RoleGraph:
    """All roles at one version of the catalogue."""

    def __init__(
        self,
        version: int,
        permissions: Mapping[str, Collection[str]],
        ancestors: Mapping[str, Collection[str]],
    ) -> None:
        """`ancestors` maps each role to itself and to all roles that it inherits from."""
        self.version = version
        self._ancestors = ancestors
        self._effective = {
            role: PermissionSet(
                name for ancestor in of_role for name in permissions.get(ancestor, ())
            )
            for role, of_role in ancestors.items()
        }
        self._combined = lru_cache(maxsize=MAX_COMBINATIONS)(self._combine)

    @property
    def names(self) -> Collection[str]:
        """Return the names of all roles."""
        return self._effective.keys()

    def effective(self, role_names: Iterable[str]) -> PermissionSet:
        """Return all that the roles grant together, inherited permissions included."""
        return self._combined(tuple(sorted(role_names)))

    def includes_any(self, role_names: Iterable[str], wanted: Collection[str]) -> bool:
        """Return whether one of the roles is in `wanted`, or inherits from one that is."""
        return any(
            ancestor in wanted for role in role_names for ancestor in self._ancestors.get(role, ())
        )

    def _combine(self, role_names: tuple[str, ...]) -> PermissionSet:
        return PermissionSet(name for role in role_names for name in self._effective.get(role, ()))


def read_graph(connection: Connection | Session) -> RoleGraph:
    """Return all roles with their ancestors, read by one recursive query."""
    version = read_version(connection)
    step = select(_roles.c.name.label("role"), _roles.c.name.label("ancestor")).cte(
        "inherited", recursive=True
    )
    before = aliased(step)
    step = step.union(
        select(before.c.role, _parents.c.parent_name).where(
            _parents.c.role_name == before.c.ancestor
        )
    )
    rows = connection.execute(
        select(step.c.role, step.c.ancestor, _roles.c.permissions).where(
            _roles.c.name == step.c.ancestor
        )
    )
    permissions: dict[str, list[str]] = {}
    ancestors: dict[str, set[str]] = {}
    for role, ancestor, named in rows:
        permissions[ancestor] = named
        ancestors.setdefault(role, set()).add(ancestor)
    return RoleGraph(version, permissions, ancestors)


def read_parents(connection: Connection | Session) -> dict[str, list[str]]:
    """Return the parents of each role that has any."""
    parents: dict[str, list[str]] = {}
    for role, parent in connection.execute(select(_parents)):
        parents.setdefault(role, []).append(parent)
    return parents


def read_version(connection: Connection | Session) -> int:
    """Return the version of the role catalogue."""
    return int(connection.execute(select(_catalogue.c.version)).scalar_one())


def catalogue_version() -> Any:
    """Return a scalar subquery for the version of the role catalogue."""
    return select(_catalogue.c.version).scalar_subquery()
