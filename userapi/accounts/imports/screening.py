"""Screening: which rows of a batch can be inserted, and why the others cannot.

The database decides when the batch is inserted: another process may create a user in between.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import or_, select

from userapi.accounts.errors import EmailTaken, UsernameTaken
from userapi.accounts.imports.results import ImportResult, rejected
from userapi.accounts.imports.rows import ImportedUser, Row, checked_user
from userapi.accounts.views import users as users_table
from userapi.actor import Actor, PermissionDenied
from userapi.errors import FieldError, Invalid, ServiceError
from userapi.infrastructure.database import reading
from userapi.passwords.policy import PasswordPolicy
from userapi.permissions import Permission
from userapi.roles.errors import PermissionEscalation
from userapi.roles.graph import RoleGraph
from userapi.roles.models import BASE_ROLE
from userapi.roles.service import Roles


@dataclass(slots=True)
class SeenInFile:
    """Names and addresses of earlier rows of the same file."""

    usernames: set[str] = field(default_factory=set)
    emails: set[str] = field(default_factory=set)

    def add(self, row: Row) -> None:
        """Add a valid row. Raises Invalid for any other."""
        self.add_user(checked_user(row))

    def add_user(self, user: ImportedUser) -> None:
        """Add a user of an earlier row."""
        self.usernames.add(user.username)
        self.emails.add(user.email.normalized)


class RowScreening:
    """Divides the rows of a batch into users to insert and results."""

    def __init__(self, *, policy: PasswordPolicy, roles: Roles) -> None:
        self._policy = policy
        self._roles = roles

    def screen(
        self, rows: Sequence[Row], seen: SeenInFile, *, actor: Actor, resume: bool
    ) -> tuple[list[ImportedUser], dict[int, ImportResult]]:
        """Return the users to insert, and the results of all other rows by row number.

        Adds the users to `seen`. With `resume` a row is skipped if its name and address belong to
        one existing user.
        """
        results: dict[int, ImportResult] = {}
        users = self._valid(rows, results)
        users = self._permitted(users, results, actor)
        users = _absent(users, results, resume=resume)
        return _first_in_file(users, results, seen), results

    def _valid(self, rows: Sequence[Row], results: dict[int, ImportResult]) -> list[ImportedUser]:
        users = []
        for row in rows:
            try:
                user = checked_user(row)
                if user.password is not None:
                    self._policy.require(
                        user.password, username=user.username, email=user.email.shown
                    )
            except Invalid as exc:
                results[row.number] = rejected(row.number, exc)
            else:
                users.append(user)
        return users

    def _permitted(
        self, users: Sequence[ImportedUser], results: dict[int, ImportResult], actor: Actor
    ) -> list[ImportedUser]:
        graph = self._roles.graph()
        permitted = []
        for user in users:
            error = _role_error(user.roles, graph, actor)
            if error is None:
                permitted.append(user)
            else:
                results[user.row] = rejected(user.row, error)
        return permitted


def _role_error(role_names: Sequence[str], graph: RoleGraph, actor: Actor) -> ServiceError | None:
    unknown = set(role_names) - set(graph.names)
    if unknown:
        return unknown_roles(role_names, unknown)
    if not set(role_names) - {BASE_ROLE}:
        return None
    if Permission.ROLES_ASSIGN not in actor.permissions:
        return PermissionDenied(Permission.ROLES_ASSIGN)
    if actor.permissions.missing_from(graph.effective(role_names)):
        return PermissionEscalation()
    return None


def unknown_roles(role_names: Sequence[str], unknown: set[str]) -> Invalid:
    """Return the error of a row that names unknown roles."""
    return Invalid(
        [
            FieldError(f"roles.{index}", "This role does not exist.", "unknown_role")
            for index, name in enumerate(role_names)
            if name in unknown
        ]
    )


def _absent(
    users: Sequence[ImportedUser], results: dict[int, ImportResult], *, resume: bool
) -> list[ImportedUser]:
    # One statement: between two, another import could commit a user of which only the address
    # would be found.
    query = select(users_table.c.username, users_table.c.email_normalized, users_table.c.id).where(
        or_(
            users_table.c.username.in_([user.username for user in users]),
            users_table.c.email_normalized.in_([user.email.normalized for user in users]),
        )
    )
    with reading() as connection:
        known = connection.execute(query).all()
    ids_by_name = {row.username: row.id for row in known}
    ids_by_address = {row.email_normalized: row.id for row in known}
    absent = []
    for user in users:
        by_name = ids_by_name.get(user.username)
        by_address = ids_by_address.get(user.email.normalized)
        if resume and by_name is not None and by_name == by_address:
            results[user.row] = ImportResult(row=user.row, status="skipped", id=by_name)
        elif by_name is not None:
            results[user.row] = rejected(user.row, UsernameTaken())
        elif by_address is not None:
            results[user.row] = rejected(user.row, EmailTaken())
        else:
            absent.append(user)
    return absent


def _first_in_file(
    users: Sequence[ImportedUser], results: dict[int, ImportResult], seen: SeenInFile
) -> list[ImportedUser]:
    first = []
    for user in users:
        if user.username in seen.usernames:
            results[user.row] = rejected(user.row, UsernameTaken())
        elif user.email.normalized in seen.emails:
            results[user.row] = rejected(user.row, EmailTaken())
        else:
            seen.add_user(user)
            first.append(user)
    return first
