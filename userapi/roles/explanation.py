"""Through which roles a user has a permission."""

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from userapi.infrastructure.database import reading, table_of
from userapi.roles.graph import read_parents
from userapi.roles.models import Role

# The number of chains grows exponentially with multiple inheritance: only the shortest are listed.
MAX_CHAINS = 100

_roles = table_of(Role)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedPermission:
    """A permission and the chains of roles that grant it."""

    permission: str
    via: Sequence[Sequence[str]]


def permission_chains(role_names: Iterable[str]) -> list[ExplainedPermission]:
    """Return what the roles grant, each permission with the chains of roles that grant it.

    A chain runs from one of `role_names` to the role that names the permission; the shortest
    come first.
    """
    with reading() as connection:
        parents = read_parents(connection)
        rows = connection.execute(select(_roles.c.name, _roles.c.permissions))
        named = {row.name: row.permissions for row in rows}
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


def _chains(
    role_names: Iterable[str], parents: Mapping[str, Collection[str]]
) -> dict[str, list[tuple[str, ...]]]:
    """Return the chains that lead to each reachable role, breadth first.

    Stops at MAX_CHAINS for each role, which also bounds the work.
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
