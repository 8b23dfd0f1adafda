"""The rules for the definition of a role."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from userapi.characters import is_blank
from userapi.errors import FieldError, Invalid, faults_of, require_all
from userapi.permissions import is_permission
from userapi.roles.definitions import RoleDefinition, RoleDifference

NAME_PATTERN = re.compile(r"[a-z][a-z0-9_-]{1,63}", re.ASCII)
# Words of the paths under /api/v1/roles: a role with such a name could not be addressed.
RESERVED_NAMES = frozenset({"permissions"})
MAX_DESCRIPTION = 500


def require_valid(given: Mapping[str, Any], *, name: str | None, known: Collection[str]) -> None:
    """Raise Invalid with every rule that the given fields of a role break.

    `name` is that of the role to be changed, None for a new one. Missing fields break no rule.
    """
    faults = list(_form_faults(given))
    if name is not None and given.get("name", name) != name:
        faults = [fault for fault in faults if fault.field != "name"]
        faults.append(FieldError("name", "A role keeps its name.", "rename_refused"))
    faults += faults_of(lambda: _require_known(given.get("parents", ()), known))
    if faults:
        raise Invalid(faults)


def normalized(wanted: RoleDefinition) -> RoleDefinition:
    """Return the definition in order and without repetitions. Raises Invalid with every fault."""
    faults = list(_form_faults(asdict(wanted)))
    if faults:
        raise Invalid(faults)
    return RoleDefinition(
        name=wanted.name,
        description=wanted.description,
        permissions=tuple(sorted(set(wanted.permissions))),
        parents=tuple(sorted(set(wanted.parents))),
    )


def require_known_parents(
    differences: Sequence[RoleDifference], known: Mapping[str, RoleDefinition]
) -> None:
    """Raise Invalid that names each parent that will not exist after the change."""
    remaining = known.keys() | {d.name for d in differences if d.after is not None}
    remaining -= {d.name for d in differences if d.after is None}
    wanted = [
        difference.after.parents for difference in differences if difference.after is not None
    ]
    require_all(*(partial(_require_known, parents, remaining) for parents in wanted))


def _form_faults(given: Mapping[str, Any]) -> Iterator[FieldError]:
    """Yield each rule of form that the given fields of a role break."""
    name, description = given.get("name"), given.get("description", "")
    if name is not None and not NAME_PATTERN.fullmatch(name):
        message = "Must be 2 to 64 characters of a-z, 0-9, '_' and '-', and begin with a letter."
        yield FieldError("name", message, "invalid_role_name")
    elif name in RESERVED_NAMES:
        yield FieldError("name", "This name is reserved.", "invalid_role_name")
    if len(description) > MAX_DESCRIPTION:
        message = f"Must be at most {MAX_DESCRIPTION} characters."
        yield FieldError("description", message, "too_long")
    elif description and is_blank(description):
        yield FieldError("description", "Must contain visible characters.", "blank")
    for index, permission in enumerate(given.get("permissions", ())):
        if not is_permission(permission):
            message = "Must be resource:action, resource:* or * in lower case."
            yield FieldError(f"permissions.{index}", message, "invalid_permission")


def _require_known(parents: Sequence[str], known: Collection[str]) -> None:
    """Raise Invalid that names each parent that does not exist."""
    unknown = [
        FieldError(f"parents.{index}", f"There is no role {parent}.", "unknown_role")
        for index, parent in enumerate(parents)
        if parent not in known
    ]
    if unknown:
        raise Invalid(unknown)
