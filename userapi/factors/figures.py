"""How many users have a second factor, and how many lack one that a role demands."""

from dataclasses import dataclass

from sqlalchemy import Connection, case, func, select

from userapi.accounts.views import users
from userapi.factors.enforcement import MfaEnforcement
from userapi.factors.methods import FactorType
from userapi.factors.models import Passkey, TotpFactor
from userapi.infrastructure.database import table_of
from userapi.roles.graph import RoleGraph, read_graph
from userapi.roles.models import UserRole

_user_roles = table_of(UserRole)
_apps = table_of(TotpFactor)
_passkeys = table_of(Passkey)


@dataclass(frozen=True, slots=True, kw_only=True)
class MfaCounts:
    """Users with a second factor, and users without one whose role demands one."""

    enabled: int
    demanded_without: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleMfa:
    """The users of a role, and how many of them have a second factor."""

    role: str
    users: int
    with_factor: int
    is_demanded: bool

    @property
    def demanded_without(self) -> int:
        """Return how many users lack the factor that the role demands."""
        return self.users - self.with_factor if self.is_demanded else 0


class MfaFigures:
    """Counts users by their second factors."""

    def __init__(self, enforcement: MfaEnforcement) -> None:
        self._enforcement = enforcement

    def counts(self, connection: Connection) -> MfaCounts:
        """Return the counts of all users."""
        enabled = select(func.count()).select_from(users).where(users.c.mfa_enabled)
        return MfaCounts(
            enabled=int(connection.execute(enabled).scalar_one()),
            demanded_without=self._demanded_without(connection),
        )

    def by_role(self, connection: Connection) -> list[RoleMfa]:
        """Return the counts of each role, by name."""
        graph = read_graph(connection)
        has_factor = func.sum(case((users.c.mfa_enabled, 1), else_=0))
        query = (
            select(_user_roles.c.role_name, func.count(), has_factor)
            .select_from(_user_roles.join(users, users.c.id == _user_roles.c.user_id))
            .group_by(_user_roles.c.role_name)
        )
        counted = {name: (total, having) for name, total, having in connection.execute(query)}
        return [
            RoleMfa(
                role=name,
                users=counted.get(name, (0, 0))[0],
                with_factor=int(counted.get(name, (0, 0))[1]),
                is_demanded=self._enforcement.demands([name], graph),
            )
            for name in sorted(graph.names)
        ]

    def _demanded_without(self, connection: Connection) -> int:
        demanding = self._demanding(read_graph(connection))
        if not demanding:
            return 0
        query = (
            select(func.count(_user_roles.c.user_id.distinct()))
            .select_from(_user_roles.join(users, users.c.id == _user_roles.c.user_id))
            .where(_user_roles.c.role_name.in_(demanding), users.c.mfa_enabled.is_(False))
        )
        return int(connection.execute(query).scalar_one())

    def _demanding(self, graph: RoleGraph) -> list[str]:
        """Return the roles that demand a factor, directly or by inheritance."""
        return [name for name in graph.names if self._enforcement.demands([name], graph)]


def users_by_type(connection: Connection) -> dict[FactorType, int]:
    """Return how many users have a confirmed factor of each type."""
    apps = select(func.count(_apps.c.user_id.distinct())).where(_apps.c.confirmed_at.is_not(None))
    passkeys = select(func.count(_passkeys.c.user_id.distinct()))
    return {
        FactorType.PASSKEY: int(connection.execute(passkeys).scalar_one()),
        FactorType.TOTP: int(connection.execute(apps).scalar_one()),
    }
