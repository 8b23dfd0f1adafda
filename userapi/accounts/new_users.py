"""A new user: what creates one, and the row of the table. Registration, creation, import and
`flask seed` build their rows here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from userapi.accounts.addresses import EmailAddress
from userapi.accounts.models import PROFILE_FIELDS, UserStatus, searchable
from userapi.infrastructure.database import new_id


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUser:
    """The values of a new account. Without a password it is an invitation."""

    username: str
    email: str
    password: str | None = None
    profile: Mapping[str, Any] = field(default_factory=dict)
    roles: Sequence[str] = ()
    status: UserStatus | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    must_change_password: bool = False


def user_row(
    *,
    username: str,
    email: EmailAddress,
    password_hash: str | None,
    status: UserStatus,
    now: datetime,
    profile: Mapping[str, Any],
    metadata: Mapping[str, Any] | None = None,
    must_change_password: bool = False,
) -> dict[str, Any]:
    """Return the row of a user who is created `now`, with a new id."""
    names = {name: profile.get(name) for name in PROFILE_FIELDS}
    return {
        "id": new_id(),
        "username": username,
        "email": email.shown,
        "email_normalized": email.normalized,
        "email_verified": False,
        "password_hash": password_hash,
        "password_changed_at": now if password_hash else None,
        "must_change_password": must_change_password,
        "status": status,
        "attributes": dict(metadata or {}),
        "search_text": searchable(username, email.shown, names["first_name"], names["last_name"]),
        "version": 1,
        "access_version": 1,
        "created_at": now,
        "updated_at": now,
        **names,
    }
