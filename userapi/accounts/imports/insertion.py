"""Insertion: the users of a batch in one transaction, with roles, audit rows, events and mails."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from psycopg2 import errors as pg_errors
from sqlalchemy import insert, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from userapi.accounts.errors import EmailTaken, UsernameTaken
from userapi.accounts.imports.results import ImportResult, rejected
from userapi.accounts.imports.rows import ImportedUser
from userapi.accounts.imports.screening import unknown_roles
from userapi.accounts.models import UserStatus
from userapi.accounts.new_users import user_row
from userapi.accounts.views import users as users_table
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.errors import ServiceError
from userapi.events.catalogue import EventType, UserEvent, UserFacts
from userapi.infrastructure.database import dialect_of, insert_for, table_of, transaction
from userapi.passwords.models import TokenPurpose
from userapi.passwords.one_time_tokens import OneTimeTokens
from userapi.recorder import Recorder
from userapi.roles.assignment import lock_roles
from userapi.roles.models import BASE_ROLE, UserRole

ATTEMPTS = 4
_HELD_BY_ANOTHER = (
    pg_errors.DeadlockDetected,
    pg_errors.LockNotAvailable,
    pg_errors.QueryCanceled,
)

_user_roles = table_of(UserRole)

# Receives the results by row number, in the transaction that inserts the users.
OnInserted = Callable[[Mapping[int, ImportResult], Session], None]


class UserInsertion:
    """Inserts users whose passwords are hashed."""

    def __init__(self, *, recorder: Recorder, one_time_tokens: OneTimeTokens) -> None:
        self._recorder = recorder
        self._one_time_tokens = one_time_tokens

    def insert(
        self, users: Sequence[ImportedUser], *, actor: Actor, on_inserted: OnInserted
    ) -> dict[int, ImportResult]:
        """Insert the users and return the result of each by row number.

        Retries when another transaction inserts the same names at this moment.
        """
        for _ in range(ATTEMPTS - 1):
            try:
                return self._insert_once(users, actor, on_inserted)
            except OperationalError as exc:
                if not isinstance(exc.orig, _HELD_BY_ANOTHER):
                    raise
        return self._insert_once(users, actor, on_inserted)

    def _insert_once(
        self, users: Sequence[ImportedUser], actor: Actor, on_inserted: OnInserted
    ) -> dict[int, ImportResult]:
        results: dict[int, ImportResult] = {}
        with transaction() as session:
            wanted = {role for user in users for role in user.roles or (BASE_ROLE,)}
            # Roles that were deleted since the screening.
            unknown = wanted - lock_roles(wanted)
            rows: dict[UUID, dict[str, Any]] = {}
            user_of: dict[UUID, ImportedUser] = {}
            for user in users:
                if unknown.intersection(user.roles):
                    results[user.row] = rejected(user.row, unknown_roles(user.roles, unknown))
                else:
                    row = self._row(user)
                    rows[row["id"]], user_of[row["id"]] = row, user
            inserted = _insert_absent(session, list(rows.values()))
            for user_id, user in user_of.items():
                results[user.row] = (
                    ImportResult(row=user.row, status="created", id=user_id)
                    if user_id in inserted
                    else rejected(user.row, _conflict_of(session, user))
                )
            created = [(i, user) for i, user in user_of.items() if i in inserted]
            if created:
                self._complete(session, created, actor)
            on_inserted(results, session)
        return results

    def _row(self, user: ImportedUser) -> dict[str, Any]:
        return user_row(
            username=user.username,
            email=user.email,
            password_hash=user.password_hash,
            status=_status_of(user),
            now=self._recorder.now(),
            profile={"first_name": user.first_name, "last_name": user.last_name},
        )

    def _complete(
        self, session: Session, users: Sequence[tuple[UUID, ImportedUser]], actor: Actor
    ) -> None:
        """Grant the roles of inserted users, record and publish them, and send invitations."""
        session.execute(
            insert(_user_roles),
            [
                {"user_id": user_id, "role_name": role}
                for user_id, user in users
                for role in user.roles or (BASE_ROLE,)
            ],
        )
        self._recorder.audit.record_all(
            AuditAction.USER_IMPORTED,
            actor=actor,
            about={
                ("user", user_id): {
                    "roles": list(user.roles or (BASE_ROLE,)),
                    "status": str(_status_of(user)),
                }
                for user_id, user in users
            },
        )
        self._recorder.outbox.append_all(
            [
                UserEvent(type=EventType.USER_CREATED, user=_facts_of(user_id, user))
                for user_id, user in users
            ],
            actor=actor,
        )
        self._invite({i: user.email.shown for i, user in users if _is_invited(user)}, actor)

    def _invite(self, addresses: Mapping[UUID, str], actor: Actor) -> None:
        self._one_time_tokens.send_all(TokenPurpose.INVITATION, addresses, actor=actor)
        self._recorder.audit.record_all(
            AuditAction.USER_INVITED,
            actor=actor,
            about={("user", user_id): None for user_id in addresses},
        )


def _is_invited(user: ImportedUser) -> bool:
    # A user who is suspended in the other system gets no invitation.
    return user.password_hash is None and user.status is not UserStatus.SUSPENDED


def _status_of(user: ImportedUser) -> UserStatus:
    return UserStatus.PENDING if _is_invited(user) else (user.status or UserStatus.ACTIVE)


def _facts_of(user_id: UUID, user: ImportedUser) -> UserFacts:
    return UserFacts(
        id=user_id,
        username=user.username,
        email=user.email.shown,
        status=_status_of(user),
        roles=user.roles or (BASE_ROLE,),
    )


def _insert_absent(session: Session, rows: Sequence[Mapping[str, Any]]) -> set[UUID]:
    """Insert the rows whose name and address are free; return their ids.

    One statement: the database leaves out rows that conflict with a concurrent transaction.
    """
    if not rows:
        return set()
    statement = (
        insert_for(dialect_of(session), users_table)
        .on_conflict_do_nothing()
        .returning(users_table.c.id)
    )
    # The same order in every import prevents deadlocks between two imports of one file.
    ordered = sorted(rows, key=lambda row: str(row["username"]))
    return set(session.execute(statement, ordered).scalars())


def _conflict_of(session: Session, user: ImportedUser) -> ServiceError:
    taken = select(users_table.c.id).where(users_table.c.username == user.username)
    return UsernameTaken() if session.execute(taken).first() else EmailTaken()
