"""What roles grant beyond the role that every user has."""

from collections.abc import Iterable

from userapi.api.context import services
from userapi.roles.models import BASE_ROLE


def granted_beyond_base(role_names: Iterable[str]) -> tuple[str, ...]:
    """Return the permissions of the roles that the base role does not grant, in order."""
    graph = services().roles.graph()
    return graph.effective([BASE_ROLE]).missing_from(graph.effective(role_names))
