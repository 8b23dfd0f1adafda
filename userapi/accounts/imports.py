"""Taking users in from files: in batches, a row that is refused never spoils another one."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import structlog
from psycopg2 import errors as pg_errors
from sqlalchemy import insert, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from userapi.accounts.errors import EmailTaken, UsernameTaken
from userapi.accounts.import_files import ImportedUser, Row, checked_user
from userapi.accounts.models import User, UserStatus, searchable
from userapi.actor import Actor, PermissionDenied
from userapi.audit.actions import AuditAction
from userapi.audit.service import AuditTrail
from userapi.clock import Clock
from userapi.errors import FieldError, Invalid, ServiceError, Unavailable
from userapi.events.catalogue import EventType, UserEvent, UserFacts
from userapi.events.outbox import Outbox
from userapi.infrastructure.database import (
    new_id,
    reading,
    table_of,
    transaction,
)
from userapi.passwords.hashing import PasswordHasher
from userapi.passwords.models import TokenPurpose
from userapi.passwords.one_time_tokens import OneTimeTokens
from userapi.passwords.policy import PasswordPolicy
from userapi.permissions import Permission
from userapi.roles.models import BASE_ROLE, UserRole
from userapi.roles.service import PermissionEscalation, RoleGraph, Roles

# Whoever takes a name that the batch holds waits until it is done: about half a second.
BATCH_ROWS = 250
# A hash takes a quarter of a second. Whoever watches or stops an import waits for one batch.
BATCH_PASSWORDS = 10
# Each waits for its turn in the hashing gate, so that log-ins find room there, too.
HASHING_THREADS = 4

ATTEMPTS = 4
_HELD_BY_ANOTHER = (
    pg_errors.DeadlockDetected,
    pg_errors.LockNotAvailable,
    pg_errors.QueryCanceled,
)

_users = table_of(User)
_user_roles = table_of(UserRole)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """What became of one row: `created`, `error`, or `skipped` where the user is there already.

    In a dry run `created` is what would be, without an id.
    """

    row: int
    status: str
    id: UUID | None = None
    code: str | None = None
    errors: Sequence[FieldError] = ()


@dataclass(slots=True)
class SeenInFile:
    """Names and addresses of earlier rows of the same file."""

    usernames: set[str] = field(default_factory=set)
    emails: set[str] = field(default_factory=set)

    def add(self, row: Row) -> None:
        """Add a row that was found good. Raises Invalid for another one."""
        user = checked_user(row)
        self.usernames.add(user.username)
        self.emails.add(user.email.normalized)


# Called with the results of a batch in the transaction that adds its users.
Keep = Callable[[Sequence[ImportResult], Session], None]
_KeepAdded = Callable[[Mapping[int, ImportResult], Session], None]


class UserImports:
    """Adds the users of a file. None that is there already is ever changed."""

    def __init__(
        self,
        *,
        clock: Clock,
        audit: AuditTrail,
        outbox: Outbox,
        roles: Roles,
        hasher: PasswordHasher,
        policy: PasswordPolicy,
        one_time_tokens: OneTimeTokens,
    ) -> None:
        self._clock = clock
        self._audit = audit
        self._outbox = outbox
        self._roles = roles
        self._hasher = hasher
        self._policy = policy
        self._one_time_tokens = one_time_tokens

    def run(
        self, rows: Iterable[Row], *, actor: Actor, dry_run: bool = False, resume: bool = False
    ) -> Iterator[list[ImportResult]]:
        """Import the rows and yield the results of each batch, in order.

        A batch is one transaction. A password goes through the policy, a hash is kept as it is
        until the first log-in, and without either the user is invited. With `resume` a row whose
        name and address belong to one user already is skipped instead of refused. When the
        database goes away after the first batch, the rows that were not reached say so.
        """
        seen = SeenInFile()
        done_any = outage = False
        for batch in batches_of(rows, hashes=not dry_run):
            if outage:
                yield [_refused(row.number, Unavailable()) for row in batch]
                continue
            try:
                yield self.run_batch(batch, seen, actor=actor, dry_run=dry_run, resume=resume)
                done_any = True
            except (OperationalError, PoolTimeout) as exc:
                if not done_any:
                    raise
                log.warning("import.interrupted", error=type(exc).__name__)
                outage = True
                yield [_refused(row.number, Unavailable()) for row in batch]

    def run_batch(
        self,
        rows: Sequence[Row],
        seen: SeenInFile,
        *,
        actor: Actor,
        dry_run: bool = False,
        resume: bool = False,
        keep: Keep | None = None,
    ) -> list[ImportResult]:
        """Import the rows in one transaction and return their results, in order.

        `keep` is called within it, also where no user is added; what it raises rolls it back.
        """
        results: dict[int, ImportResult] = {}
        users = self._well_formed(rows, results)
        users = self._permitted(users, results, actor)
        users = self._absent(users, results, resume)
        users = self._first_of_their_name(users, results, seen)

        def in_order(added: Mapping[int, ImportResult]) -> list[ImportResult]:
            return [(added.get(row.number) or results[row.number]) for row in rows]

        added: dict[int, ImportResult] = {}
        hashed: list[ImportedUser] = []
        if dry_run:
            results |= {u.row: ImportResult(row=u.row, status="created") for u in users}
        else:
            hashed = self._with_hashes(users, results)
        if hashed:
            added = self._add_patiently(hashed, actor, keep and _ordered(keep, in_order))
        elif keep is not None:
            with transaction() as session:
                keep(in_order({}), session)
        return in_order(added)

    def _well_formed(
        self, rows: Sequence[Row], results: dict[int, ImportResult]
    ) -> list[ImportedUser]:
        users = []
        for row in rows:
            try:
                user = checked_user(row)
                if user.password is not None:
                    self._policy.require(
                        user.password, username=user.username, email=user.email.shown
                    )
            except Invalid as exc:
                results[row.number] = _refused(row.number, exc)
            else:
                users.append(user)
        return users

    def _permitted(
        self, users: Sequence[ImportedUser], results: dict[int, ImportResult], actor: Actor
    ) -> list[ImportedUser]:
        graph = self._roles.graph()
        permitted = []
        for user in users:
            refusal = _refused_roles(user.roles, graph, actor)
            if refusal is None:
                permitted.append(user)
            else:
                results[user.row] = _refused(user.row, refusal)
        return permitted

    def _absent(
        self, users: Sequence[ImportedUser], results: dict[int, ImportResult], resume: bool
    ) -> list[ImportedUser]:
        # One statement: what another import commits between two would be there by address alone.
        query = select(_users.c.username, _users.c.email_normalized, _users.c.id).where(
            or_(
                _users.c.username.in_([user.username for user in users]),
                _users.c.email_normalized.in_([user.email.normalized for user in users]),
            )
        )
        with reading() as connection:
            known = connection.execute(query).all()
        names = {row.username: row.id for row in known}
        addresses = {row.email_normalized: row.id for row in known}
        absent = []
        for user in users:
            by_name, by_address = names.get(user.username), addresses.get(user.email.normalized)
            if resume and by_name is not None and by_name == by_address:
                results[user.row] = ImportResult(row=user.row, status="skipped", id=by_name)
            elif by_name is not None:
                results[user.row] = _refused(user.row, UsernameTaken())
            elif by_address is not None:
                results[user.row] = _refused(user.row, EmailTaken())
            else:
                absent.append(user)
        return absent

    def _first_of_their_name(
        self, users: Sequence[ImportedUser], results: dict[int, ImportResult], seen: SeenInFile
    ) -> list[ImportedUser]:
        first = []
        for user in users:
            if user.username in seen.usernames:
                results[user.row] = _refused(user.row, UsernameTaken())
            elif user.email.normalized in seen.emails:
                results[user.row] = _refused(user.row, EmailTaken())
            else:
                seen.usernames.add(user.username)
                seen.emails.add(user.email.normalized)
                first.append(user)
        return first

    def _with_hashes(
        self, users: Sequence[ImportedUser], results: dict[int, ImportResult]
    ) -> list[ImportedUser]:
        """Return the users with hashes for passwords, made a few at a time."""

        def hashed(user: ImportedUser) -> ImportedUser | ServiceError:
            if user.password is None:
                return user
            try:
                made = self._hasher.hash(user.password)
            except ServiceError as exc:
                return exc
            return replace(user, password=None, password_hash=made)

        if not any(user.password is not None for user in users):
            return list(users)
        with ThreadPoolExecutor(HASHING_THREADS) as pool:
            outcomes = list(pool.map(hashed, users))
        done = []
        for user, outcome in zip(users, outcomes, strict=True):
            if isinstance(outcome, ServiceError):
                results[user.row] = _refused(user.row, outcome)
            else:
                done.append(outcome)
        return done

    def _add_patiently(
        self, users: Sequence[ImportedUser], actor: Actor, keep: _KeepAdded | None
    ) -> dict[int, ImportResult]:
        """Add the users; try again where somebody else is adding the same names right now."""
        for _ in range(ATTEMPTS - 1):
            try:
                return self._add(users, actor, keep)
            except OperationalError as exc:
                if not isinstance(exc.orig, _HELD_BY_ANOTHER):
                    raise
        return self._add(users, actor, keep)

    def _add(
        self, users: Sequence[ImportedUser], actor: Actor, keep: _KeepAdded | None
    ) -> dict[int, ImportResult]:
        """Add the users in one transaction. Somebody else may have taken a name meanwhile."""
        results: dict[int, ImportResult] = {}
        with transaction() as session:
            wanted = {role for user in users for role in user.roles or (BASE_ROLE,)}
            gone = wanted - self._roles.locked(wanted)
            records = {}
            for user in users:
                if gone.intersection(user.roles):
                    results[user.row] = _refused(user.row, _unknown_roles(user.roles, gone))
                else:
                    record = self._record(user)
                    records[record["id"]] = (user, record)
            added = _insert_absent(session, [record for _, record in records.values()])
            for user_id, (user, _) in records.items():
                results[user.row] = (
                    ImportResult(row=user.row, status="created", id=user_id)
                    if user_id in added
                    else _refused(user.row, _taken(session, user))
                )
            there = [(i, user) for i, (user, _) in records.items() if i in added]
            if there:
                self._complete(session, there, actor)
            if keep is not None:
                keep(results, session)
        return results

    def _record(self, user: ImportedUser) -> dict[str, Any]:
        now = self._clock.now()
        return {
            "id": new_id(),
            "username": user.username,
            "email": user.email.shown,
            "email_normalized": user.email.normalized,
            "email_verified": False,
            "password_hash": user.password_hash,
            "password_changed_at": now if user.password_hash else None,
            "must_change_password": False,
            "first_name": user.first_name,
            "last_name": user.last_name,
            "status": _status_of(user),
            "attributes": {},
            "search_text": searchable(
                user.username, user.email.shown, user.first_name, user.last_name
            ),
            "version": 1,
            "access_version": 1,
            "created_at": now,
            "updated_at": now,
        }

    def _complete(
        self, session: Session, users: Sequence[tuple[UUID, ImportedUser]], actor: Actor
    ) -> None:
        """Give users that were added their roles, and tell of them."""
        session.execute(
            insert(_user_roles),
            [
                {"user_id": user_id, "role_name": role}
                for user_id, user in users
                for role in user.roles or (BASE_ROLE,)
            ],
        )
        self._audit.record_all(
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
        self._outbox.append_all(
            [
                UserEvent(
                    type=EventType.USER_CREATED,
                    user=UserFacts(
                        id=user_id,
                        username=user.username,
                        email=user.email.shown,
                        status=_status_of(user),
                        roles=user.roles or (BASE_ROLE,),
                    ),
                )
                for user_id, user in users
            ],
            actor=actor,
        )
        invited = [(user_id, user) for user_id, user in users if _is_invited(user)]
        self._one_time_tokens.send_all(
            TokenPurpose.INVITATION,
            {user_id: user.email.shown for user_id, user in invited},
            actor=actor,
        )
        self._audit.record_all(
            AuditAction.USER_INVITED,
            actor=actor,
            about={("user", user_id): None for user_id, _ in invited},
        )


def batches_of(rows: Iterable[Row], *, hashes: bool = True) -> Iterator[list[Row]]:
    """Yield the rows in batches; those with passwords in short ones, unless none is hashed."""
    most_passwords = BATCH_PASSWORDS if hashes else BATCH_ROWS
    batch: list[Row] = []
    passwords = 0
    for row in rows:
        batch.append(row)
        passwords += row.has_password
        if len(batch) == BATCH_ROWS or passwords == most_passwords:
            yield batch
            batch, passwords = [], 0
    if batch:
        yield batch


def _ordered(
    keep: Keep, in_order: Callable[[Mapping[int, ImportResult]], Sequence[ImportResult]]
) -> _KeepAdded:
    return lambda added, session: keep(in_order(added), session)


def _is_invited(user: ImportedUser) -> bool:
    # Whoever was suspended elsewhere is not asked in again.
    return user.password_hash is None and user.status is not UserStatus.SUSPENDED


def _status_of(user: ImportedUser) -> UserStatus:
    return UserStatus.PENDING if _is_invited(user) else (user.status or UserStatus.ACTIVE)


def _refused_roles(roles: Sequence[str], graph: RoleGraph, actor: Actor) -> ServiceError | None:
    unknown = set(roles) - set(graph.names)
    if unknown:
        return _unknown_roles(roles, unknown)
    if not set(roles) - {BASE_ROLE}:
        return None
    if Permission.ROLES_ASSIGN not in actor.permissions:
        return PermissionDenied(Permission.ROLES_ASSIGN)
    if actor.permissions.missing_from(graph.effective(roles)):
        return PermissionEscalation()
    return None


def _unknown_roles(roles: Sequence[str], unknown: set[str]) -> Invalid:
    return Invalid(
        [
            FieldError(f"roles.{index}", "This role does not exist.", "unknown_role")
            for index, name in enumerate(roles)
            if name in unknown
        ]
    )


def _refused(row: int, error: ServiceError) -> ImportResult:
    errors = error.errors if isinstance(error, Invalid) else ()
    return ImportResult(row=row, status="error", code=error.code, errors=errors)


def _insert_absent(session: Session, records: Sequence[Mapping[str, Any]]) -> set[UUID]:
    """Insert those whose name and address are free; return their ids.

    One statement for all: what somebody else takes at the same moment is left out by the database.
    """
    if not records:
        return set()
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    statement = dialect.insert(_users).on_conflict_do_nothing().returning(_users.c.id)
    # In one order everywhere, so that two imports of one file do not wait for each other in a ring.
    ordered = sorted(records, key=lambda record: str(record["username"]))
    return set(session.execute(statement, ordered).scalars())


def _taken(session: Session, user: ImportedUser) -> ServiceError:
    taken = select(_users.c.id).where(_users.c.username == user.username)
    return UsernameTaken() if session.execute(taken).first() else EmailTaken()
