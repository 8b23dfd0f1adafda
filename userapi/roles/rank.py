"""The rule of rank for changes of roles: an actor can lower only users that they outrank."""

from typing import Any

from sqlalchemy import Column, func, select

from userapi.actor import Actor
from userapi.infrastructure.database import require_transaction, statement_timeout, table_of
from userapi.permissions import Permission
from userapi.roles.errors import InsufficientRank
from userapi.roles.graph import RoleGraph
from userapi.roles.models import ServiceAccountRole, UserRole

# The query takes a second for 100 000 relevant users. Roles change rarely, so it may take longer.
MAX_QUERY_SECONDS = 15
_MANAGES_ROLES = str(Permission.ROLES_MANAGE)

_user_roles = table_of(UserRole)
_account_roles = table_of(ServiceAccountRole)
# The holders of roles, each with the column of the role.
_HOLDERS = (
    (_user_roles.c.user_id, _user_roles.c.role_name),
    (_account_roles.c.service_account_id, _account_roles.c.role_name),
)


def require_outranks_losers(actor: Actor, *, before: RoleGraph, after: RoleGraph) -> None:
    """Raise InsufficientRank if a user or service account that the actor does not outrank loses a
    permission of this service. Actors may remove permissions from themselves.

    Reads in the open transaction who has which roles, and only relevant users: a user whom
    the actor does not outrank has a role that grants more than the actor holds, or has all that the
    actor holds, and so also the one permission `shared`.
    """
    mine = actor.permissions.rank
    if actor.permissions.holds_all:
        return
    ranks = {name: before.effective([name]).rank for name in before.names}
    losing = [name for name, rank in ranks.items() if not rank <= after.effective([name]).rank]
    shared = _MANAGES_ROLES if _MANAGES_ROLES in mine else next(iter(sorted(mine)), None)
    mattering = [name for name, rank in ranks.items() if not rank <= mine or shared in rank]
    if not losing or not mattering:
        return
    for holder, role in _HOLDERS:
        for names in _combinations(holder, role, actor, losing=losing, mattering=mattering):
            theirs = before.effective(names)
            loses = not theirs.rank <= after.effective(names).rank
            if loses and not actor.permissions.outranks(theirs):
                raise InsufficientRank(
                    "A user or service account that you do not outrank would lose permissions."
                )


def _combinations(
    holder: Column[Any],
    role: Column[Any],
    actor: Actor,
    *,
    losing: list[str],
    mattering: list[str],
) -> list[list[str]]:
    """Return the distinct combinations of roles of holders who have a role of both lists."""
    concerned = (
        select(holder)
        .where(role.in_(losing))
        .intersect(select(holder).where(role.in_(mattering), holder != actor.id))
    )
    held = (
        select(func.aggregate_strings(role, ",").label("names"))
        .where(holder.in_(concerned))
        .group_by(holder)
        .subquery()
    )
    session = require_transaction()
    with statement_timeout(session, MAX_QUERY_SECONDS):
        combinations = session.scalars(select(held.c.names).distinct()).all()
    return [joined.split(",") for joined in combinations]
