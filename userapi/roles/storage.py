"""The statements that write roles. All run in the transaction that has locked the catalogue."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session, aliased

from userapi.infrastructure.database import table_of
from userapi.roles.definitions import RoleDifference
from userapi.roles.errors import RoleCycle, RoleInUse
from userapi.roles.models import Role, RoleCatalogue, RoleParent, ServiceAccountRole, UserRole

_roles = table_of(Role)
_parents = table_of(RoleParent)
_user_roles = table_of(UserRole)
_account_roles = table_of(ServiceAccountRole)
_catalogue = table_of(RoleCatalogue)


def lock_catalogue(session: Session) -> None:
    """Lock the catalogue against every other change of a role."""
    session.execute(select(_catalogue.c.version).with_for_update())


def next_version(session: Session) -> int:
    """Increment the version of the catalogue and return it."""
    increment = (
        update(_catalogue).values(version=_catalogue.c.version + 1).returning(_catalogue.c.version)
    )
    return int(session.execute(increment).scalar_one())


def write_roles(
    session: Session, differences: Sequence[RoleDifference], *, version: int, now: datetime
) -> None:
    """Write the differences. Raises RoleInUse and RoleCycle.

    Each role stores the version of the catalogue: no two states of one name ever share it, not even
    those of a deleted role and of a later one with the same name.
    """
    for difference in differences:
        _write_role(session, difference, version=version, now=now)
    # After all roles, because new ones may inherit from one another.
    links = [
        {"role_name": difference.name, "parent_name": parent}
        for difference in differences
        if difference.after is not None
        for parent in difference.after.parents
    ]
    if links:
        session.execute(insert(_parents), links)
    for difference in differences:
        if difference.after is None:
            _delete_role(session, difference.name)
    _require_no_cycle(session)


def _write_role(
    session: Session, difference: RoleDifference, *, version: int, now: datetime
) -> None:
    """Insert or update a role and remove its former parents."""
    name, after = difference.name, difference.after
    if difference.before is not None:
        session.execute(delete(_parents).where(_parents.c.role_name == name))
    if after is None:
        return
    values = {
        "description": after.description,
        "permissions": list(after.permissions),
        "version": version,
        "updated_at": now,
    }
    if difference.before is None:
        session.execute(insert(_roles).values(name=name, builtin=False, created_at=now, **values))
    else:
        session.execute(update(_roles).where(_roles.c.name == name).values(**values))


def _delete_role(session: Session, name: str) -> None:
    # Waits for transactions that assign the role to a user: `lock_roles` locks this row.
    session.execute(select(_roles.c.name).where(_roles.c.name == name).with_for_update())
    has_users = select(_user_roles.c.user_id).where(_user_roles.c.role_name == name).limit(1)
    if session.execute(has_users).first():
        raise RoleInUse("Users have this role.", role=name)
    has_accounts = (
        select(_account_roles.c.role_name).where(_account_roles.c.role_name == name).limit(1)
    )
    if session.execute(has_accounts).first():
        raise RoleInUse("Service accounts have this role.", role=name)
    has_children = select(_parents.c.role_name).where(_parents.c.parent_name == name).limit(1)
    child = session.execute(has_children).scalar()
    if child is not None:
        raise RoleInUse(f"The role {child} inherits from this role.", role=name)
    session.execute(delete(_roles).where(_roles.c.name == name))


def _require_no_cycle(session: Session) -> None:
    """Raise RoleCycle if a role is among its own ancestors, found by one recursive query."""
    step = select(_parents.c.role_name, _parents.c.parent_name.label("ancestor")).cte(
        "ancestry", recursive=True
    )
    before = aliased(step)
    # UNION drops rows that it has already found, so that the query also ends on a cycle.
    step = step.union(
        select(before.c.role_name, _parents.c.parent_name).where(
            _parents.c.role_name == before.c.ancestor
        )
    )
    if session.execute(
        select(step.c.role_name).where(step.c.role_name == step.c.ancestor).limit(1)
    ).first():
        raise RoleCycle()
