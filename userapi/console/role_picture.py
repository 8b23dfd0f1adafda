"""The diagram of role inheritance, with parents above the roles that inherit from them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from userapi.roles.service import RoleView

WIDTH, HEIGHT = 150, 36
GAP_ACROSS, GAP_DOWN = 24, 56
MARGIN = 8


@dataclass(frozen=True, slots=True)
class Node:
    """A role and the position of its box."""

    name: str
    builtin: bool
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Edge:
    """A line from the lower edge of a parent to the upper edge of a role."""

    x1: int
    y1: int
    x2: int
    y2: int


@dataclass(frozen=True, slots=True)
class Picture:
    """All boxes and lines, and the total size."""

    nodes: Sequence[Node]
    edges: Sequence[Edge]
    width: int
    height: int


def draw(roles: Sequence[RoleView]) -> Picture:
    """Return the diagram. A role is one row below the lowest of its parents."""
    depths = _depths(roles)
    rows: list[list[RoleView]] = [[] for _ in range(max(depths.values(), default=0) + 1)]
    for role in sorted(roles, key=lambda role: role.name):
        rows[depths[role.name]].append(role)
    across, down = WIDTH + GAP_ACROSS, HEIGHT + GAP_DOWN
    widest = max(map(len, rows))
    nodes: dict[str, Node] = {}
    for depth, row in enumerate(rows):
        # Sorted by the position of their parents, so that fewer lines cross.
        row.sort(key=lambda role: (_middle([nodes[p].x for p in role.parents]), role.name))
        indent = (widest - len(row)) * across // 2
        for column, role in enumerate(row):
            x, y = MARGIN + indent + column * across, MARGIN + depth * down
            nodes[role.name] = Node(role.name, role.builtin, x, y)
    edges = [
        Edge(nodes[p].x + WIDTH // 2, nodes[p].y + HEIGHT, node.x + WIDTH // 2, node.y)
        for role in roles
        for p in role.parents
        for node in [nodes[role.name]]
    ]
    return Picture(
        nodes=list(nodes.values()),
        edges=edges,
        width=widest * across - GAP_ACROSS + 2 * MARGIN,
        height=len(rows) * down - GAP_DOWN + 2 * MARGIN,
    )


def relatives(name: str, roles: Sequence[RoleView]) -> list[RoleView]:
    """Return a role, all that it inherits from, and all that inherit from it."""
    by_name = {role.name: role for role in roles}
    ancestors, descendants = {name}, {name}
    for _ in roles:
        ancestors |= {parent for other in ancestors for parent in by_name[other].parents}
        descendants |= {role.name for role in roles if descendants & set(role.parents)}
    kept = ancestors | descendants
    return [
        replace(role, parents=tuple(parent for parent in role.parents if parent in kept))
        for role in roles
        if role.name in kept
    ]


def _depths(roles: Sequence[RoleView]) -> dict[str, int]:
    """Return the depth of each role in the inheritance, which has no cycles."""
    depths = {role.name: 0 for role in roles}
    for _ in roles:
        for role in roles:
            depths[role.name] = max([0, *(depths[p] + 1 for p in role.parents)])
    return depths


def _middle(values: Sequence[int]) -> float:
    return sum(values) / len(values) if values else 0
