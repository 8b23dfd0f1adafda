"""Reading roles, and whether an actor may grant them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Connection, func, select
from sqlalchemy.orm import Session

from userapi.actor import Actor
from userapi.infrastructure.database import reading, require_transaction, table_of
from userapi.infrastructure.user_counts import UserCountKind, user_counts
from userapi.permissions import PermissionSet
from userapi.roles.errors import InsufficientRank, PermissionEscalation, RoleNotFound
from userapi.roles.graph import RoleGraph, read_graph, read_parents, read_version
from userapi.roles.models import Role, ServiceAccountRole

_roles = table_of(Role)
_account_roles = table_of(ServiceAccountRole)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleView:
    """A role as it is shown."""

    name: str
    description: str
    permissions: tuple[str, ...]
    parents: tuple[str, ...]
    effective_permissions: tuple[str, ...]
    builtin: bool
    user_count: int
    service_account_count: int
    version: int
    created_at: datetime
    updated_at: datetime


class Roles:
    """Reads roles. Caches what they grant in the process until the catalogue changes."""

    def __init__(self) -> None:
        self._graph: RoleGraph | None = None

    def graph(self, version: int | None = None) -> RoleGraph:
        """Return the roles at `version` of the catalogue, by default the current one.

        The process caches one graph. A caller that knows the current version gets it without a
        query; otherwise the version costs one query.
        """
        cached = self._graph
        if cached is not None and cached.version == version:
            return cached
        with reading() as connection:
            if (
                cached is not None
                and version is None
                and cached.version == read_version(connection)
            ):
                return cached
            graph = read_graph(connection)
        self._graph = graph
        return graph

    def clear_cache(self) -> None:
        """Drop the cached graph. Needed if the versions of the catalogue start again."""
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
        graph = read_graph(connection)
        holders = user_counts(UserCountKind.ROLE).subquery()
        query = (
            select(
                _roles,
                func.coalesce(holders.c.count, 0, type_=BigInteger).label("user_count"),
                select(func.count())
                .where(_account_roles.c.role_name == _roles.c.name)
                .scalar_subquery()
                .label("service_account_count"),
            )
            .outerjoin(holders, holders.c.key == _roles.c.name)
            .order_by(_roles.c.name)
        )
        if name is not None:
            query = query.where(_roles.c.name == name)
        parents = read_parents(connection)
        return [
            RoleView(
                name=row.name,
                description=row.description,
                permissions=tuple(sorted(row.permissions)),
                parents=tuple(sorted(parents.get(row.name, ()))),
                effective_permissions=tuple(graph.effective([row.name])),
                builtin=row.builtin,
                user_count=int(row.user_count),
                service_account_count=row.service_account_count,
                version=row.version,
                created_at=row.created_at,
                updated_at=row.updated_at,
            )
            for row in connection.execute(query)
        ]

    def graph_now(self) -> RoleGraph:
        """Return the roles as the open transaction sees them."""
        session = require_transaction()
        graph = self._graph
        if graph is None or graph.version != read_version(session):
            graph = read_graph(session)
        return graph

    def effective_now(self, role_names: Iterable[str]) -> PermissionSet:
        """Return what roles grant as the open transaction sees it."""
        return self.graph_now().effective(role_names)

    def require_may_grant(self, actor: Actor, role_names: Iterable[str]) -> None:
        """Raise PermissionEscalation unless the actor holds all that the roles grant."""
        missing = actor.permissions.missing_from(self.effective_now(role_names))
        if missing:
            raise PermissionEscalation(missing_permissions=list(missing))

    def require_outranks(self, actor: Actor, user_id: UUID, role_names: Iterable[str]) -> None:
        """Raise InsufficientRank unless the actor is that user or holds more than they do."""
        if actor.is_session_of(user_id):
            return
        if not actor.permissions.outranks(self.effective_now(role_names)):
            raise InsufficientRank()
