"""Assigning roles to users, in the open transaction."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select
from sqlalchemy.orm import Session

from userapi.errors import FieldError, Invalid, invalid_field
from userapi.infrastructure.database import require_transaction, table_of
from userapi.roles.errors import LastSuperadmin
from userapi.roles.models import BASE_ROLE, MAX_ROLES, TOP_ROLE, Role, UserRole

_roles = table_of(Role)
_user_roles = table_of(UserRole)
_INSERT = insert(_user_roles)


def replace_roles(user_id: UUID, role_names: Collection[str]) -> tuple[list[str], list[str]]:
    """Replace the roles of a user by these; return the old and the new ones.

    No role at all means the base role. Raises Invalid for an unknown role, and for more roles than
    a user may have, except where roles are only removed.
    """
    session = require_transaction()
    before = role_names_of(session, user_id)
    wanted = _wanted(role_names)
    if not set(wanted) < set(before):
        require_few_roles(wanted)
    for gone in set(before) - set(wanted):
        session.execute(
            delete(_user_roles).where(
                _user_roles.c.user_id == user_id, _user_roles.c.role_name == gone
            )
        )
    _give(session, user_id, [name for name in wanted if name not in before])
    return before, wanted


def give_first_roles(user_id: UUID, role_names: Collection[str]) -> list[str]:
    """Assign a new user's first roles and return them. Raises what `replace_roles` raises."""
    wanted = _wanted(role_names)
    require_few_roles(wanted)
    _give(require_transaction(), user_id, wanted)
    return wanted


def lock_roles(role_names: Iterable[str]) -> set[str]:
    """Return those of the names that are roles, and lock their rows.

    They cannot be deleted until the open transaction ends.
    """
    return set(
        require_transaction().scalars(
            select(_roles.c.name)
            .where(_roles.c.name.in_(list(role_names)))
            .order_by(_roles.c.name)
            .with_for_update(read=True, key_share=True)
        )
    )


def role_names_of(connection: Connection | Session, user_id: UUID) -> list[str]:
    """Return the names of a user's roles, in order."""
    query = (
        select(_user_roles.c.role_name)
        .where(_user_roles.c.user_id == user_id)
        .order_by(_user_roles.c.role_name)
    )
    return list(connection.execute(query).scalars())


def require_listed(role_names: Sequence[str], known: Collection[str]) -> None:
    """Raise Invalid that names each role that does not exist."""
    unknown = [
        FieldError(f"roles.{index}", "This role does not exist.", "unknown_role")
        for index, name in enumerate(role_names)
        if name not in known
    ]
    if unknown:
        raise Invalid(unknown)


def require_few_roles(role_names: Collection[str]) -> None:
    """Raise Invalid for more roles than a user may have."""
    if len(set(role_names)) > MAX_ROLES:
        raise invalid_field("roles", f"Must have at most {MAX_ROLES} roles.", "too_many_roles")


def require_other_superadmin(user_id: UUID, *, active: ColumnElement[bool], users: Any) -> None:
    """Raise LastSuperadmin unless an active superadmin other than `user_id` remains.

    Locks the row of the role: of two superadmins who remove each other, the second waits here and
    counts after the first has committed.
    """
    session = require_transaction()
    session.execute(
        select(_roles.c.name).where(_roles.c.name == TOP_ROLE).with_for_update(key_share=True)
    )
    others = (
        select(func.count())
        .select_from(_user_roles.join(users, users.c.id == _user_roles.c.user_id))
        .where(_user_roles.c.role_name == TOP_ROLE, users.c.id != user_id, active)
    )
    if session.execute(others).scalar_one() == 0:
        raise LastSuperadmin()


def _wanted(role_names: Collection[str]) -> list[str]:
    """Return the roles in order, all locked. Raises Invalid for an unknown one."""
    wanted = sorted(set(role_names)) or [BASE_ROLE]
    require_listed(wanted, lock_roles(wanted))
    return wanted


def _give(session: Session, user_id: UUID, role_names: Collection[str]) -> None:
    if role_names:
        session.execute(_INSERT, [{"user_id": user_id, "role_name": name} for name in role_names])
