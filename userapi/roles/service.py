"""What roles grant, and the rules of who may give what to whom."""

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    delete,
    func,
    insert,
    select,
)
from sqlalchemy.orm import Session, aliased

from userapi.actor import Actor
from userapi.errors import Conflict, FieldError, Forbidden, Invalid, NotFound, invalid_field
from userapi.infrastructure.database import (
    reading,
    require_transaction,
    statement_timeout,
    table_of,
)
from userapi.infrastructure.user_counts import UserCountKind, user_counts
from userapi.permissions import Permission, PermissionSet
from userapi.roles.models import (
    BASE_ROLE,
    MAX_ROLES,
    TOP_ROLE,
    Role,
    RoleCatalogue,
    RoleParent,
    UserRole,
)

# Roles that inherit on many ways have chains without number: so many of the shortest are told.
MAX_CHAINS = 100
MAX_LOOK_SECONDS = 15

_roles = table_of(Role)
_parents = table_of(RoleParent)
_user_roles = table_of(UserRole)
_GIVE = insert(_user_roles)
_catalogue = table_of(RoleCatalogue)


_MANAGES_ROLES = str(Permission.ROLES_MANAGE)


class RoleNotFound(NotFound):
    """No role has that name."""

    title = "This role does not exist."


class PermissionEscalation(Forbidden):
    """Somebody would give away what they do not hold."""

    code = "permission_escalation"
    title = "You cannot grant permissions that you do not hold."


class InsufficientRank(Forbidden):
    """The other user holds as much as the actor, or more."""

    code = "insufficient_rank"
    title = "You do not outrank this user."


class LastSuperadmin(Conflict):
    """Nobody would be left who can do everything."""

    code = "last_superadmin"
    title = "The last active superadmin cannot be removed."


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleView:
    """A role as its readers see it."""

    name: str
    description: str
    permissions: tuple[str, ...]
    parents: tuple[str, ...]
    effective_permissions: tuple[str, ...]
    builtin: bool
    user_count: int
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedPermission:
    """A permission and the chains of roles through which somebody has it."""

    permission: str
    via: Sequence[Sequence[str]]


class RoleGraph:
    """All roles at one version of the catalogue: what each names, and what each inherits."""

    def __init__(
        self,
        version: int,
        permissions: Mapping[str, Collection[str]],
        ancestors: Mapping[str, Collection[str]],
    ) -> None:
        """`ancestors` maps each role to itself and all that it inherits from."""
        self.version = version
        self._effective = {
            role: PermissionSet(
                name for ancestor in of_role for name in permissions.get(ancestor, ())
            )
            for role, of_role in ancestors.items()
        }
        self._combined: dict[tuple[str, ...], PermissionSet] = {}

    @property
    def names(self) -> Collection[str]:
        """Return the names of all roles."""
        return self._effective.keys()

    def effective(self, role_names: Iterable[str]) -> PermissionSet:
        """Return all that the roles grant together, inherited permissions included."""
        key = tuple(sorted(role_names))
        known = self._combined.get(key)
        if known is None:
            known = PermissionSet(name for role in key for name in self._effective.get(role, ()))
            if len(self._combined) < 10_000:
                self._combined[key] = known
        return known


class Roles:
    """Reads roles, and keeps what they grant in the process until the catalogue changes."""

    def __init__(self) -> None:
        self._graph: RoleGraph | None = None

    def graph(self, version: int | None = None) -> RoleGraph:
        """Return the roles as they are at `version` of the catalogue, or now.

        A process remembers one graph; a caller that knows the present version gets it without a
        query, and any other for the one that asks which it is.
        """
        remembered = self._graph
        if remembered is not None and remembered.version == version:
            return remembered
        with reading() as connection:
            if remembered is not None and version is None:
                present = connection.execute(select(_catalogue.c.version)).scalar_one()
                if remembered.version == present:
                    return remembered
            graph = _load_graph(connection)
        self._graph = graph
        return graph

    def forget(self) -> None:
        """Read the roles anew when they are next asked for: their versions have begun again."""
        self._graph = None

    def all(self) -> list[RoleView]:
        """Return every role, by name."""
        with reading() as connection:
            return self.views(connection)

    def get(self, name: str) -> RoleView:
        """Return one role. Raises RoleNotFound."""
        with reading() as connection:
            views = self.views(connection, name)
        if not views:
            raise RoleNotFound()
        return views[0]

    def views(self, connection: Connection | Session, name: str | None = None) -> list[RoleView]:
        """Return every role, or the one of that name, as `connection` sees it."""
        graph = _load_graph(connection)
        holders = user_counts(UserCountKind.ROLE).subquery()
        query = (
            select(_roles, func.coalesce(holders.c.count, 0, type_=BigInteger).label("user_count"))
            .outerjoin(holders, holders.c.key == _roles.c.name)
            .order_by(_roles.c.name)
        )
        if name is not None:
            query = query.where(_roles.c.name == name)
        parents: dict[str, list[str]] = {}
        for role, parent in connection.execute(select(_parents)):
            parents.setdefault(role, []).append(parent)
        return [
            RoleView(
                name=row.name,
                description=row.description,
                permissions=tuple(sorted(row.permissions)),
                parents=tuple(sorted(parents.get(row.name, ()))),
                effective_permissions=tuple(graph.effective([row.name])),
                builtin=row.builtin,
                user_count=int(row.user_count),
                version=row.version,
                created_at=row.created_at,
                updated_at=row.updated_at,
            )
            for row in connection.execute(query)
        ]

    def explain(self, role_names: Iterable[str]) -> list[ExplainedPermission]:
        """Return what roles grant, each permission with the chains of roles that give it.

        A chain runs from one of `role_names` to the role that names the permission; the shortest
        come first.
        """
        with reading() as connection:
            parents: dict[str, list[str]] = {}
            for role, parent in connection.execute(select(_parents)):
                parents.setdefault(role, []).append(parent)
            named = {
                row.name: row.permissions
                for row in connection.execute(select(_roles.c.name, _roles.c.permissions))
            }
        chains: dict[str, list[tuple[str, ...]]] = {}
        for role, found in _chains(role_names, parents).items():
            for permission in named.get(role, ()):
                chains.setdefault(permission, []).extend(found)
        return [
            ExplainedPermission(
                permission=permission,
                via=sorted(found, key=lambda chain: (len(chain), chain))[:MAX_CHAINS],
            )
            for permission, found in sorted(chains.items())
        ]

    def graph_now(self) -> RoleGraph:
        """Return the roles as the open transaction sees them."""
        session = require_transaction()
        version = session.execute(select(_catalogue.c.version)).scalar_one()
        graph = self._graph
        if graph is None or graph.version != version:
            graph = _load_graph(session)
        return graph

    def effective_now(self, role_names: Iterable[str]) -> PermissionSet:
        """Return what roles grant as the open transaction sees it."""
        return self.graph_now().effective(role_names)

    def replace(self, user_id: UUID, role_names: Collection[str]) -> tuple[list[str], list[str]]:
        """Give a user exactly these roles, in the open transaction; return the old and the new.

        No role at all becomes the base role. Raises Invalid for an unknown role, and for more roles
        than a user may have, unless there are only fewer of them than before.
        """
        session = require_transaction()
        before = role_names_of(session, user_id)
        wanted = self._wanted(role_names)
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

    def give_first(self, user_id: UUID, role_names: Collection[str]) -> list[str]:
        """Give a new user their first roles, as `replace` does; return them."""
        wanted = self._wanted(role_names)
        require_few_roles(wanted)
        _give(require_transaction(), user_id, wanted)
        return wanted

    def _wanted(self, role_names: Collection[str]) -> list[str]:
        wanted = sorted(set(role_names)) or [BASE_ROLE]
        self.require_known(wanted)
        return wanted

    def require_known(self, role_names: Iterable[str]) -> None:
        """Raise Invalid that names each role that does not exist."""
        wanted = list(role_names)
        require_listed(wanted, self.locked(wanted))

    def locked(self, role_names: Iterable[str]) -> set[str]:
        """Return those of the names that are roles.

        Their rows stay until the end of the open transaction: nobody deletes a role that is given.
        """
        return set(
            require_transaction().scalars(
                select(_roles.c.name)
                .where(_roles.c.name.in_(list(role_names)))
                .order_by(_roles.c.name)
                .with_for_update(read=True, key_share=True)
            )
        )

    def require_may_grant(self, actor: Actor, role_names: Iterable[str]) -> None:
        """Raise PermissionEscalation unless the actor holds all that the roles grant."""
        missing = actor.permissions.missing_from(self.effective_now(role_names))
        if missing:
            raise PermissionEscalation(missing_permissions=list(missing))

    def require_outranks(self, actor: Actor, user_id: UUID, role_names: Iterable[str]) -> None:
        """Raise InsufficientRank unless the actor is that user or holds more than they do."""
        if actor.is_user(user_id):
            return
        if not actor.permissions.outranks(self.effective_now(role_names)):
            raise InsufficientRank()


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


def require_outranks_losers(actor: Actor, *, before: RoleGraph, after: RoleGraph) -> None:
    """Raise InsufficientRank if somebody loses a permission of this service whom the actor does not
    outrank; whoever changes a role that they have themselves is no obstacle.

    Reads in the open transaction who has which roles. Users who cannot matter are not read: those
    whom the actor does not outrank have a role that grants more than the actor holds, or all that
    the actor holds, and so also the one permission that is asked for below.
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
    concerned = (
        select(_user_roles.c.user_id)
        .where(_user_roles.c.role_name.in_(losing))
        .intersect(
            select(_user_roles.c.user_id).where(
                _user_roles.c.role_name.in_(mattering), _user_roles.c.user_id != actor.id
            )
        )
    )
    held = (
        select(func.aggregate_strings(_user_roles.c.role_name, ",").label("names"))
        .where(_user_roles.c.user_id.in_(concerned))
        .group_by(_user_roles.c.user_id)
        .subquery()
    )
    session = require_transaction()
    # A second for 100 000 users who all matter; roles are changed rarely enough for more.
    with statement_timeout(session, MAX_LOOK_SECONDS):
        combinations = session.scalars(select(held.c.names).distinct()).all()
    for joined in combinations:
        names = joined.split(",")
        theirs = before.effective(names)
        loses = not theirs.rank <= after.effective(names).rank
        if loses and not actor.permissions.outranks(theirs):
            raise InsufficientRank(
                "Somebody whom you do not outrank would lose permissions by this."
            )


def _give(session: Session, user_id: UUID, role_names: Collection[str]) -> None:
    if role_names:
        session.execute(_GIVE, [{"user_id": user_id, "role_name": name} for name in role_names])


def role_names_of(connection: Connection | Session, user_id: UUID) -> list[str]:
    """Return the names of a user's roles, in order."""
    query = (
        select(_user_roles.c.role_name)
        .where(_user_roles.c.user_id == user_id)
        .order_by(_user_roles.c.role_name)
    )
    return list(connection.execute(query).scalars())


def require_other_superadmin(user_id: UUID, *, active: ColumnElement[bool], users: Any) -> None:
    """Raise LastSuperadmin unless an active superadmin other than `user_id` remains.

    Locks the role's row: two who remove each other wait here for one another, and the second one
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


def catalogue_version() -> Any:
    """Return a scalar subquery for the version of the role catalogue."""
    return select(_catalogue.c.version).scalar_subquery()


def _load_graph(connection: Connection | Session) -> RoleGraph:
    """Read all roles with their ancestors by one recursive query."""
    version = connection.execute(select(_catalogue.c.version)).scalar_one()
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


def _chains(
    role_names: Iterable[str], parents: Mapping[str, Collection[str]]
) -> dict[str, list[tuple[str, ...]]]:
    """Return for every role that is reached the chains that lead to it, breadth first.

    No more than MAX_CHAINS lead to one role, which also bounds the work.
    """
    found: dict[str, list[tuple[str, ...]]] = {}
    waiting: deque[tuple[str, ...]] = deque((name,) for name in sorted(set(role_names)))
    while waiting:
        chain = waiting.popleft()
        known = found.setdefault(chain[-1], [])
        if len(known) >= MAX_CHAINS:
            continue
        known.append(chain)
        waiting.extend((*chain, parent) for parent in sorted(parents.get(chain[-1], ())))
    return found
