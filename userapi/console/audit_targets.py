"""What audit rows are about, by name: users, service accounts, API keys, sessions, roles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from flask import url_for
from flask_babel import gettext
from sqlalchemy import Row

from userapi.api.context import current_actor, services
from userapi.machines.models import OwnerType
from userapi.permissions import Permission

from .problem_texts import N_

# A row of the log, or what a reader may see of it.
AuditRow = Row[Any] | SimpleNamespace

USER, SERVICE_ACCOUNT = "user", "service_account"
API_KEY, SESSION, ROLE = "api_key", "session", "role"
DELETED = {
    USER: N_("a deleted user"),
    SERVICE_ACCOUNT: N_("a deleted service account"),
}
KINDS = {
    API_KEY: N_("API key"),
    ROLE: N_("role"),
    SESSION: N_("session of"),
    "bulk": N_("bulk change"),
    "import": N_("import"),
    "key": N_("signing key"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the column of targets shows for a row."""

    kind: str
    """In the viewer's language; empty for users and service accounts, whose name is enough."""
    name: str
    url: str | None
    """The page of the target or of its owner, if the viewer may open it."""
    trail_id: str | None
    """The user or service account whose trail is one click away."""


def names_of(rows: Sequence[AuditRow]) -> dict[str, str]:
    """Return the names, by id, of the users and service accounts that rows are about.

    They are targets, or own one. Deleted ones have no name. At most two queries.
    """
    owners = {owner for row in rows if (owner := owner_of(row)) is not None}
    users = {owner_id for kind, owner_id in owners if kind == USER}
    accounts = {owner_id for kind, owner_id in owners if kind == SERVICE_ACCOUNT}
    names = services().user_search.names(users) if users else {}
    if accounts:
        names |= services().service_account_search.names(accounts)
    return {str(owner_id): name for owner_id, name in names.items()}


def owner_of(row: AuditRow) -> tuple[str, UUID] | None:
    """Return the user or service account that is the target or owns it: its kind and id."""
    details = row.details or {}
    match row.target_type:
        case "user" | "service_account":
            return _identified(row.target_type, row.target_id)
        case "session":
            # A row about the session of its actor does not repeat whose it is.
            return _identified(USER, details.get("user_id") or row.actor_id)
        case "api_key":
            is_service = details.get("owner_type") == OwnerType.SERVICE
            return _identified(SERVICE_ACCOUNT if is_service else USER, details.get("owner_id"))
    return None


def _identified(kind: str, text: Any) -> tuple[str, UUID] | None:
    try:
        return kind, UUID(str(text))
    except ValueError:
        return None


def target_of(row: AuditRow, names: Mapping[str, str]) -> Target | None:
    """Return what a row is about; None if it has no target. `names` are those of `names_of`."""
    if not row.target_id:
        return None
    owner = owner_of(row)
    kind = gettext(KINDS[row.target_type]) if row.target_type in KINDS else ""
    trail_id = None if owner is None else str(owner[1])
    name = _name_of(row, names)
    return Target(kind=str(kind), name=name, url=_page_of(row, owner, names), trail_id=trail_id)


def _name_of(row: AuditRow, names: Mapping[str, str]) -> str:
    if row.target_type == API_KEY:
        return name_of_key(row, names)
    owner = owner_of(row)
    if owner is None:
        return str(row.target_id)
    return names.get(str(owner[1])) or str(gettext(DELETED[owner[0]]))


def name_of_key(row: AuditRow, names: Mapping[str, str]) -> str:
    """Return the name of the API key that a row is about, and of its owner if that is another."""
    name = str((row.details or {}).get("name") or row.target_id)
    owner = owner_of(row)
    if owner is None or str(owner[1]) == str(row.actor_id):
        return name
    owner_name = names.get(str(owner[1])) or gettext(DELETED[owner[0]])
    return str(gettext("%(name)s of %(owner)s", name=name, owner=owner_name))


def _page_of(row: AuditRow, owner: tuple[str, UUID] | None, names: Mapping[str, str]) -> str | None:
    held = current_actor().permissions
    if row.target_type == ROLE:
        may_open = Permission.ROLES_READ in held and row.action != "role.deleted"
        return url_for("console.role_page", name=row.target_id) if may_open else None
    if owner is None or str(owner[1]) not in names:
        return None
    kind, owner_id = owner
    if kind == SERVICE_ACCOUNT:
        may_open = Permission.SERVICE_ACCOUNTS_READ in held
        return url_for("console.service_account_page", account_id=owner_id) if may_open else None
    if Permission.USERS_READ not in held:
        return None
    shows_security = row.target_type in (API_KEY, SESSION)
    page = "console.user_security_page" if shows_security else "console.user_page"
    return url_for(page, user_id=owner_id)
