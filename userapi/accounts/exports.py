"""Export: all users of a filter as a file, streamed in pieces of constant size."""

import itertools
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from userapi.accounts.search import UserFilter, UserSearch
from userapi.accounts.views import UserView, user_view, users
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.audit.service import AuditTrail
from userapi.clock import Clock
from userapi.infrastructure.database import reading
from userapi.infrastructure.export import ExportFormat, export_pieces

CHUNK = 1000
COLUMNS = (
    "id",
    "username",
    "email",
    "email_verified",
    "first_name",
    "last_name",
    "phone",
    "locale",
    "timezone",
    "avatar_url",
    "status",
    "status_reason",
    "suspended_until",
    "roles",
    "metadata",
    "must_change_password",
    "mfa_enabled",
    "created_at",
    "updated_at",
    "last_login_at",
    "locked_until",
)


class UserExports:
    """Exports the users that match a filter."""

    def __init__(self, *, clock: Clock, audit: AuditTrail, search: UserSearch) -> None:
        self._clock = clock
        self._audit = audit
        self._search = search

    def pieces(self, wanted: UserFilter, form: ExportFormat, *, actor: Actor) -> Iterator[bytes]:
        """Record the export and return the file in pieces.

        The first rows are read before this returns, so that an unavailable database is an error and
        not a truncated file. Every user who exists during the whole export is in it exactly once.
        """
        filters = {name: str(value) for name, value in asdict(wanted).items() if value is not None}
        self._audit.record_alone(
            AuditAction.USER_EXPORTED,
            actor=actor,
            details={"format": str(form), "filters": filters},
        )
        chunks = self._chunks(wanted)
        first = next(chunks, [])
        return export_pieces(
            ([_row(user, form) for user in chunk] for chunk in itertools.chain([first], chunks)),
            columns=COLUMNS,
            form=form,
        )

    def _chunks(self, wanted: UserFilter) -> Iterator[list[UserView]]:
        """Yield the users in the order of their ids. No connection is held between two chunks."""
        now = self._clock.now()
        last = None
        while True:
            with reading() as connection:
                query = self._search.matching(wanted, connection).order_by(users.c.id)
                part = (query if last is None else query.where(users.c.id > last)).limit(CHUNK)
                found = [user_view(row, now) for row in connection.execute(part)]
            if found:
                yield found
            if len(found) < CHUNK:
                return
            last = found[-1].id


def _row(user: UserView, form: ExportFormat) -> dict[str, Any]:
    row = user.public
    if form is ExportFormat.CSV:
        row["roles"] = ";".join(user.roles)
    return row
