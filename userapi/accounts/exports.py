"""Giving users out as a file, a piece at a time, so that memory does not grow with their number."""

import csv
import io
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from typing import Any

import orjson

from userapi.accounts.search import UserFilter, UserSearch
from userapi.accounts.views import UserView, user_view, users
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.audit.service import AuditTrail
from userapi.clock import Clock, rfc3339
from userapi.database import reading

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
    "created_at",
    "updated_at",
    "last_login_at",
    "locked_until",
)
# A spreadsheet takes a cell that begins with one of these for a formula (OWASP, CSV Injection).
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class ExportFormat(StrEnum):
    """How a file of users is written."""

    CSV = "csv"
    NDJSON = "ndjson"


class UserExports:
    """Reads all users that a filter describes."""

    def __init__(self, *, clock: Clock, audit: AuditTrail, search: UserSearch) -> None:
        self._clock = clock
        self._audit = audit
        self._search = search

    def pieces(
        self, wanted: UserFilter, file_format: ExportFormat, *, actor: Actor
    ) -> Iterator[bytes]:
        """Return the file in pieces. That it was asked for is recorded before the first one.

        The first piece is read at once, so that a database that is away is an error and not a file
        that breaks off. Every user who is there throughout is in the file exactly once.
        """
        filters = {name: str(value) for name, value in asdict(wanted).items() if value is not None}
        self._audit.record_alone(
            AuditAction.USER_EXPORTED,
            actor=actor,
            details={"format": str(file_format), "filters": filters},
        )
        chunks = self._chunks(wanted)
        first = next(chunks, [])
        return _written(first, chunks, file_format)

    def _chunks(self, wanted: UserFilter) -> Iterator[list[UserView]]:
        """Return the users by their ids. Between two chunks no connection is held."""
        now = self._clock.now()
        query = self._search.matching(wanted).order_by(users.c.id).limit(CHUNK)
        last = None
        while True:
            part = query if last is None else query.where(users.c.id > last)
            with reading() as connection:
                found = [user_view(row, now) for row in connection.execute(part)]
            if found:
                yield found
            if len(found) < CHUNK:
                return
            last = found[-1].id


def safe_cell(value: Any) -> str:
    """Return a value as the text of a cell that no spreadsheet takes for a formula."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, list):
        text = ";".join(value)
    elif isinstance(value, dict):
        text = orjson.dumps(value).decode()
    else:
        text = str(value)
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def _written(
    first: list[UserView], rest: Iterator[list[UserView]], file_format: ExportFormat
) -> Iterator[bytes]:
    if file_format is ExportFormat.NDJSON:
        yield _ndjson(first)
        for chunk in rest:
            yield _ndjson(chunk)
        return
    yield _csv([list(COLUMNS), *map(_cells, first)])
    for chunk in rest:
        yield _csv([_cells(user) for user in chunk])


def _ndjson(chunk: list[UserView]) -> bytes:
    # As the API shows a user.
    options = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE
    return b"".join(orjson.dumps(user, option=options) for user in chunk)


def _csv(rows: list[list[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cells(user: UserView) -> list[str]:
    return [safe_cell(getattr(user, name)) for name in COLUMNS]
