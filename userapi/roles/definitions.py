"""Definitions of roles: the fields that can be changed, and how two definitions differ."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from userapi.infrastructure.database import table_of
from userapi.roles.graph import read_parents
from userapi.roles.models import Role

_roles = table_of(Role)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleDefinition:
    """All fields of a role that can be changed."""

    name: str
    description: str = ""
    permissions: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleDifference:
    """The current and the wanted definition of one role; None if the role does not exist."""

    before: RoleDefinition | None
    after: RoleDefinition | None

    @property
    def name(self) -> str:
        """Return the name of the role."""
        present = self.after or self.before
        return present.name if present else ""

    @property
    def changes(self) -> dict[str, tuple[Any, Any]]:
        """Return each field that differs, with its old and its new value."""
        fields = ("description", "permissions", "parents")
        pairs = {
            field: (getattr(self.before, field, None), getattr(self.after, field, None))
            for field in fields
        }
        return {field: pair for field, pair in pairs.items() if pair[0] != pair[1]}


def read_definitions(session: Session) -> dict[str, RoleDefinition]:
    """Return the current definition of every role, by name."""
    parents = read_parents(session)
    rows = session.execute(select(_roles.c.name, _roles.c.description, _roles.c.permissions))
    return {
        row.name: RoleDefinition(
            name=row.name,
            description=row.description,
            permissions=tuple(sorted(row.permissions)),
            parents=tuple(sorted(parents.get(row.name, ()))),
        )
        for row in rows
    }
