"""Importing: the rows of a file become users, batch by batch. A rejected row affects no other."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import structlog
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from userapi.accounts.imports.insertion import UserInsertion
from userapi.accounts.imports.results import ImportResult, rejected
from userapi.accounts.imports.rows import ImportedUser, Row
from userapi.accounts.imports.screening import RowScreening, SeenInFile
from userapi.actor import Actor
from userapi.errors import ServiceError, Unavailable
from userapi.infrastructure.database import transaction
from userapi.passwords.hashing import PasswordHasher

# Other transactions that insert a name of the batch wait until it commits: about half a second.
BATCH_ROWS = 250
# A hash takes a quarter of a second. Progress and cancellation wait for one batch.
BATCH_PASSWORDS = 10
# Each thread queues for the hashing pool, so that log-ins find room in it.
HASHING_THREADS = 4

log = structlog.get_logger(__name__)

# Receives the results of a batch, in order, in the transaction that inserts its users.
OnResults = Callable[[Sequence[ImportResult], Session], None]


class UserImports:
    """Imports the users of a file. Existing users are not changed."""

    def __init__(
        self, *, screening: RowScreening, insertion: UserInsertion, hasher: PasswordHasher
    ) -> None:
        self._screening = screening
        self._insertion = insertion
        self._hasher = hasher

    def run(
        self, rows: Iterable[Row], *, actor: Actor, dry_run: bool = False, resume: bool = False
    ) -> Iterator[list[ImportResult]]:
        """Import the rows and yield the results of each batch, in order.

        A batch is one transaction. The policy checks passwords; a hash is stored unchanged until
        the first log-in; a user with neither is invited. With `resume` a row whose name and address
        belong to one existing user is skipped instead of rejected. If the database fails after the
        first batch, the results of the remaining rows say so.
        """
        seen = SeenInFile()
        done_any = outage = False
        for batch in batches_of(rows, hashes=not dry_run):
            if outage:
                yield [rejected(row.number, Unavailable()) for row in batch]
                continue
            try:
                yield self.run_batch(batch, seen, actor=actor, dry_run=dry_run, resume=resume)
                done_any = True
            except (OperationalError, PoolTimeout) as exc:
                if not done_any:
                    raise
                log.warning("import.interrupted", error=type(exc).__name__)
                outage = True
                yield [rejected(row.number, Unavailable()) for row in batch]

    def run_batch(
        self,
        rows: Sequence[Row],
        seen: SeenInFile,
        *,
        actor: Actor,
        dry_run: bool = False,
        resume: bool = False,
        on_results: OnResults | None = None,
    ) -> list[ImportResult]:
        """Import the rows in one transaction and return their results, in order.

        `on_results` is called in the transaction, also if no user is inserted; an exception that it
        raises rolls the batch back.
        """
        users, results = self._screening.screen(rows, seen, actor=actor, resume=resume)

        def in_order(inserted: Mapping[int, ImportResult]) -> list[ImportResult]:
            return [inserted.get(row.number) or results[row.number] for row in rows]

        def report(inserted: Mapping[int, ImportResult], session: Session) -> None:
            if on_results is not None:
                on_results(in_order(inserted), session)

        if dry_run:
            results |= {u.row: ImportResult(row=u.row, status="created") for u in users}
            users = []
        users = self._with_hashes(users, results)
        if users:
            return in_order(self._insertion.insert(users, actor=actor, on_inserted=report))
        if on_results is not None:
            with transaction() as session:
                report({}, session)
        return in_order({})

    def _with_hashes(
        self, users: Sequence[ImportedUser], results: dict[int, ImportResult]
    ) -> list[ImportedUser]:
        """Return the users with hashes in place of passwords; a few are hashed at a time."""
        if all(user.password is None for user in users):
            return list(users)
        with ThreadPoolExecutor(HASHING_THREADS) as pool:
            outcomes = list(pool.map(self._hashed, users))
        hashed = []
        for user, outcome in zip(users, outcomes, strict=True):
            if isinstance(outcome, ServiceError):
                results[user.row] = rejected(user.row, outcome)
            else:
                hashed.append(outcome)
        return hashed

    def _hashed(self, user: ImportedUser) -> ImportedUser | ServiceError:
        if user.password is None:
            return user
        try:
            password_hash = self._hasher.hash(user.password)
        except ServiceError as exc:
            return exc
        return replace(user, password=None, password_hash=password_hash)


def batches_of(rows: Iterable[Row], *, hashes: bool = True) -> Iterator[list[Row]]:
    """Yield the rows in batches; with `hashes`, batches with passwords are short."""
    max_passwords = BATCH_PASSWORDS if hashes else BATCH_ROWS
    batch: list[Row] = []
    passwords = 0
    for row in rows:
        batch.append(row)
        passwords += row.has_password
        if len(batch) == BATCH_ROWS or passwords == max_passwords:
            yield batch
            batch, passwords = [], 0
    if batch:
        yield batch
